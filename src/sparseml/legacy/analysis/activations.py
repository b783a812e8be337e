"""How sparse the activations of a layer are."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, fields
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparseml.legacy.helpers.tensors import tensor_sample
from sparseml.pytorch.utils.layer_tracking import ASLayerTracker
from sparseml.pytorch.utils.layers import get_layer
from sparseml.pytorch.utils.tensors.nested import iter_tensors
from sparseml.pytorch.utils.tensors.stats import tensor_sparsity

__all__ = ["ASResultType", "ModuleASAnalyzer"]


class ASResultType(enum.Enum):
    """What is measured."""

    inputs_sparsity = "inputs_sparsity"
    inputs_sample = "inputs_sample"
    outputs_sparsity = "outputs_sparsity"
    outputs_sample = "outputs_sample"


@dataclass(eq=False, repr=False)
class ModuleASAnalyzer:
    """Measures the activations of a layer in every forward pass.

    The first tensor that goes in, seen before the layer runs, or the first that comes out gives
    one result a pass, on the CPU: its fraction of exact zeros, or values drawn from it at random.
    Means and the like raise a RuntimeError where nothing was measured. What is measured may be
    changed at any time.

    ``inputs_sparsity``, ``inputs_sample``, ``outputs_sparsity`` and ``outputs_sample`` are the
    :meth:`results` of each pass; with ``_mean``, ``_std``, ``_max`` or ``_min`` behind the name,
    what they come to over all passes.

    :param module: the layer
    :param dim: measure for each index of this dimension or these dimensions; None for whole tensors
    :param track_inputs_sparsity: measure the fraction of zeros of what goes in
    :param track_outputs_sparsity: measure that of what comes out
    :param inputs_sample_size: draw so many values of what goes in; 0 for none
    :param outputs_sample_size: draw so many values of what comes out; 0 for none
    :param enabled: measure from now on
    :param seed: of the drawing
    """

    module: nn.Module
    dim: int | Sequence[int] | None = None
    track_inputs_sparsity: bool = False
    track_outputs_sparsity: bool = False
    inputs_sample_size: int = 0
    outputs_sample_size: int = 0
    enabled: InitVar[bool] = True
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self, enabled: bool) -> None:
        self._generators: dict[torch.device, torch.Generator] = {}
        seen = partial(self._measure, "inputs"), partial(self._measure, "outputs")
        self._tracker = ASLayerTracker(self.module, True, True, *seen)
        self.clear()
        self._enabled = False
        if enabled:
            self.enable()

    def __repr__(self) -> str:
        shown = [*(one.name for one in fields(self)[1:-1]), "enabled"]
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}(module={type(self.module).__name__}, {settings})"

    @staticmethod
    def analyze_layers(
        module: nn.Module,
        layers: Sequence[str],
        dim: int | Sequence[int] | None = None,
        track_inputs_sparsity: bool = False,
        track_outputs_sparsity: bool = False,
        inputs_sample_size: int = 0,
        outputs_sample_size: int = 0,
        enabled: bool = True,
    ) -> list[ModuleASAnalyzer]:
        """Return an analyzer for each named layer; an AttributeError names those nearest."""
        tracked = (track_inputs_sparsity, track_outputs_sparsity)
        rest = (dim, *tracked, inputs_sample_size, outputs_sample_size, enabled)
        return [ModuleASAnalyzer(get_layer(name, module), *rest) for name in layers]

    if TYPE_CHECKING:  # the properties that are set below

        def __getattr__(self, name: str) -> Any: ...

    def enable(self) -> None:
        """Measure from now on."""
        self._tracker.enable()
        self._enabled = True

    def disable(self) -> None:
        """Stop measuring; results stay."""
        self._tracker.disable()
        self._enabled = False

    def clear(self, specific_result_type: ASResultType | None = None) -> None:
        """Forget the results of one kind, or all."""
        if specific_result_type is None:
            self._results: dict[ASResultType, list[Tensor]] = {kind: [] for kind in ASResultType}
        else:
            self._results[specific_result_type] = []

    def results(self, result_type: ASResultType) -> list[Tensor]:
        """Return for each pass ``[1]`` or ``[*dims]``; for drawn values ``[*dims, size]``."""
        return self._results[result_type]

    def results_mean(self, result_type: ASResultType) -> Tensor:
        """Return the mean along dimension 0 of all results of one kind put together."""
        return self._together(result_type).mean(0)

    def results_std(self, result_type: ASResultType) -> Tensor:
        """Return the standard deviation, like :meth:`results_mean`; NaN for a single value."""
        together = self._together(result_type)
        return together.std(0) if len(together) > 1 else torch.full_like(together[0], torch.nan)

    def results_max(self, result_type: ASResultType) -> Tensor:
        """Return the highest number in all results of one kind (0-d)."""
        return self._together(result_type).max()

    def results_min(self, result_type: ASResultType) -> Tensor:
        """Return the lowest number in all results of one kind (0-d)."""
        return self._together(result_type).min()

    def _together(self, kind: ASResultType) -> Tensor:
        results = self._results[kind]
        if not results:
            raise RuntimeError(f"no {kind.value} was measured: enable it and run a forward pass")
        return torch.cat(results)

    def _measure(self, side: str, values: Any) -> None:
        tensor = next(iter_tensors(values), None)
        if tensor is None:
            return
        tensor, size = tensor.detach(), getattr(self, f"{side}_sample_size")
        if getattr(self, f"track_{side}_sparsity"):
            found = torch.atleast_1d(tensor_sparsity(tensor, self.dim).cpu())
            self._results[ASResultType[f"{side}_sparsity"]].append(found)
        if size > 0:
            drawn = tensor_sample(tensor, size, self.dim, generator=self._generator(tensor.device))
            self._results[ASResultType[f"{side}_sample"]].append(drawn.cpu())

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]


def _property(kind: ASResultType, what: str) -> property:
    return property(lambda self: getattr(self, what)(kind), doc=f"{what} of {kind.value}")


_PROPERTIES = {"enabled": property(attrgetter("_enabled"), doc="Whether passes are measured.")}
for _kind in ASResultType:
    _PROPERTIES[_kind.value] = _property(_kind, "results")
    for _how in ("mean", "std", "max", "min"):
        _PROPERTIES[f"{_kind.value}_{_how}"] = _property(_kind, f"results_{_how}")
for _name, _found in _PROPERTIES.items():
    setattr(ModuleASAnalyzer, _name, _found)
