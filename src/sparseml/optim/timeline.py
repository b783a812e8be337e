"""When the modifiers of a recipe act, seen as a whole."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from sparseml.optim.types import SparsificationTypes


def _epochs(field: str, modifiers: Iterable[Any]) -> list[float]:
    return [epoch for m in modifiers if (epoch := getattr(m, field, -1)) > -1]


_starts, _ends = partial(_epochs, "start_epoch"), partial(_epochs, "end_epoch")


def _of_type(kind: SparsificationTypes, what: str) -> Any:
    return property(
        lambda self: [m for m in self.iter_modifiers() if kind in m.sparsification_types],
        doc=f"The modifiers that {what}.",
    )


class TimelineMixin:
    """Questions about a recipe's modifiers and their epochs."""

    modifiers: Any

    def iter_modifiers(self) -> Iterable[Any]:
        """Return all modifiers, stage by stage."""
        raise NotImplementedError

    epoch_modifiers = _of_type(SparsificationTypes.epoch, "only set the range of epochs")
    learning_rate_modifiers = _of_type(SparsificationTypes.learning_rate, "set the learning rate")
    pruning_modifiers = _of_type(SparsificationTypes.pruning, "prune")
    quantization_modifiers = _of_type(SparsificationTypes.quantization, "quantize")
    distillation_modifiers = _of_type(SparsificationTypes.distillation, "distil from a teacher")
    structured_modifiers = _of_type(SparsificationTypes.structured, "change the structure")

    def _resolved_modifiers(self) -> list[Any]:
        modifiers = list(self.iter_modifiers())
        for modifier in modifiers:
            # how often a modifier updates says nothing about where it starts and ends
            bounds = (getattr(modifier, field, None) for field in ("start_step", "end_step"))
            if any(bound is not None for bound in bounds):
                modifier.check_steps_resolved()
        return modifiers

    @property
    def min_epochs(self) -> int:
        """The epoch in which the first modifier starts; -1 if none says.

        :raises RuntimeError: if a schedule in steps has not been resolved
        """
        return min((math.floor(start) for start in _starts(self._resolved_modifiers())), default=-1)

    @property
    def max_epochs(self) -> int:
        """The number of epochs after which nothing starts or ends any more; -1 if none says.

        :raises RuntimeError: if a schedule in steps has not been resolved
        """
        modifiers = self._resolved_modifiers()
        return max((math.ceil(e) for e in [*_starts(modifiers), *_ends(modifiers)]), default=-1)

    def qat_active(self, epoch: float) -> bool:
        """Return whether a quantization modifier acts during the epoch that begins at ``epoch``."""
        starts = [modifier.start_epoch for modifier in self.quantization_modifiers]
        return bool(starts) and min(starts) < epoch + 1

    def phase(self, epoch: float) -> str | None:
        """Return what the model is like at an epoch.

        :return: ``"dense"``, ``"pruned"``, ``"dense_quantized"``, ``"pruned_quantized"``,
            ``"quantized_pruned"`` (pruning ended last), or None while it is changing
        """
        pruning, quantization = self.pruning_modifiers, self.quantization_modifiers
        pruning_start = min((m.start_epoch for m in pruning), default=math.inf)
        pruning_end = max((m.end_epoch for m in pruning), default=math.inf)
        first_quantized = min((m.start_epoch for m in quantization), default=math.inf)
        last_quantized = max((m.start_epoch for m in quantization), default=math.inf)
        if pruning_start <= epoch <= pruning_end or first_quantized <= epoch <= last_quantized:
            return None
        pruned, quantized = epoch > pruning_end, epoch > last_quantized
        if not quantized:
            return "pruned" if pruned else "dense"
        if not pruned:
            return "dense_quantized"
        return "quantized_pruned" if pruning_end >= last_quantized else "pruned_quantized"

    def get_start_end_epochs(self) -> OrderedDict[str, tuple[float, float]]:
        """Return where each stage starts and ends; a recipe without stages is one, named ``"all"``.

        A stage that does not say where it ends, ends where the next one starts.
        """
        if not isinstance(self.modifiers, Mapping):
            return OrderedDict(all=(self.min_epochs, self.max_epochs))
        self._resolved_modifiers()
        stages = list(self.modifiers)
        starts = [min(_starts(self.modifiers[stage]), default=None) for stage in stages]
        ends = [max(_ends(self.modifiers[stage]), default=None) for stage in stages]
        bounds: OrderedDict[str, tuple[float, float]] = OrderedDict()
        for index, stage in enumerate(stages):
            before = [end for end in ends[:index] if end is not None]
            after = [start for start in starts[index + 1 :] if start is not None]
            start, end = starts[index], ends[index]
            start = start if start is not None else (before[-1] if before else 0.0)
            end = end if end is not None else (after[0] if after else float(self.max_epochs))
            bounds[stage] = (start, max(start, end))
        return bounds

    def get_last_start_epoch(self) -> float:
        """Return where the last stage starts, at least 0."""
        return max(0.0, list(self.get_start_end_epochs().values())[-1][0])
