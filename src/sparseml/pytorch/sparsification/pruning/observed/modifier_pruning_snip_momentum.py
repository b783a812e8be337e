"""Gradual pruning by saliency with momentum."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn import Module

from sparseml.pytorch.functional.budgets import Budget, Reserving, Uniform
from sparseml.pytorch.functional.patterns import Block, Pattern, Slice
from sparseml.pytorch.functional.schedules import over_whole_intervals
from sparseml.pytorch.functional.scores import gradient, saliency
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_optional_names,
    between,
    declared_fields,
    field,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.elementwise import Magnitude
from sparseml.pytorch.sparsification.pruning.methods.method import Method
from sparseml.pytorch.sparsification.pruning.methods.running import RunningScore
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    PatternFields,
    checked_pattern,
    out_in_shapes,
)
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.utils.text import shown

_LOGGER = logging.getLogger(__name__)
_CAP = 0.98
_SCORES = ("snip_momentum", "snip", "gradient", "magnitude")


@PyTorchModifierYAML()
@declared_fields(GradualFields, PatternFields)
class SnipMomentumPruningModifier(BaseGradualPruningModifier):
    """Prunes by running saliency, as Intel Neural Compressor's ``snip_momentum`` does.

    At every optimizer step until pruning ends ``q = 0.9 * q + |gradient * weight|``, and at an
    update the units with the lowest ``q`` go. With ``update_frequency`` or ``update_steps`` the
    final sparsity is there at the last update that is a whole number of intervals after the start.
    Ranked together, tensors that would use up what others still need for
    ``min_sparsity_per_param`` are held back; counts are rounded down to whole units. ``N:M`` may
    end below its full sparsity, with some groups in the pattern and the others dense.

    | Sample yaml:
    |   !SnipMomentumPruningModifier
    |       params: ['re:.*(query|key|value|dense).weight']
    |       init_sparsity: 0.0
    |       final_sparsity: 0.9
    |       start_step: 230
    |       end_step: 2300
    |       update_steps: 50
    |       mask_type: 4x1
    |       max_sparsity_per_param: 0.98

    :param inter_func: ``exp``, ``cos``, ``cube``, ``linear``, ``cubic`` or ``inverse_cubic``
    :param max_sparsity_per_param: with global_sparsity, no parameter gets sparser than this; by
        default 0.98, or the final sparsity where that is more
    :param score_type: ``snip_momentum``; ``snip`` or ``gradient``, of the last step alone; or
        ``magnitude``
    :param score_decay: how much of the running score outlives a step
    :param score_gain: what a step's score is multiplied by
    :param score_reduce: how the scores of a unit's weights are summed up: ``mean``, ``sum`` or
        ``max``; in blocks the highest score of each step is what is added to the running score
    :param score_dtype: to keep running scores in, ``float32`` (``float64`` for such weights) or
        ``bfloat16``
    :param layer_types: prune only in layers whose class name contains one of these
    :param skip_indivisible: leave parameters dense that ``mask_type`` does not divide, instead of
        an error
    :raises ValueError: for fields that contradict each other
    """

    inter_func: str = "exp"
    global_sparsity: bool = True
    score_type: str = field(one_of(_SCORES), default="snip_momentum")
    score_decay: float = field(between(0.0, 1.0), default=0.9)
    score_gain: float = field(between(above=0.0), default=1.0)
    score_reduce: str = field(one_of(("mean", "sum", "max")), default="mean")
    score_dtype: str = field(one_of(("float32", "bfloat16")), default="float32")
    layer_types: str | Iterable[str] | None = field(as_optional_names, default=None)
    skip_indivisible: bool = field(as_flag, default=False)

    _stops_short = True

    def select(
        self, module: Module, params: str | Iterable[str], strict: bool | None = None
    ) -> list[NamedLayerParam]:
        """Return the parameters that entries mean, without those of other layers or sizes."""
        found = super().select(module, params, strict)
        kept = [one for one in found if self._fits(one)]
        if found and not kept:
            raise ValueError(
                f"layer_types and skip_indivisible of {type(self).__name__} leave nothing of what "
                f"params {shown(params)} select"
            )
        return kept

    def _fits(self, one: NamedLayerParam) -> bool:
        kinds, kind = self.layer_types, type(one.layer).__name__
        if kinds is not None and not any(name in kind for name in kinds):
            return False
        if not self.skip_indivisible:
            return True
        pattern = checked_pattern(self._mask_type, [])
        try:
            pattern.check(out_in_shapes([one])[0])
        except ValueError as error:
            _LOGGER.warning("%s is left dense: %s", one.name, error)
            return False
        return True

    def _get_method(self) -> Method:
        if self.score_type == "magnitude":
            return Magnitude()
        decay = self.score_decay if self.score_type == "snip_momentum" else 0.0
        score = gradient if self.score_type == "gradient" else saliency
        dtype = torch.bfloat16 if self.score_dtype == "bfloat16" else None
        return RunningScore(score, decay, self.score_gain, dtype)

    def _get_pattern(self, selected: Sequence[NamedLayerParam]) -> Pattern:
        pattern: Any = super()._get_pattern(selected)
        if any(one.name == "reduce" for one in dataclasses.fields(pattern)):
            pattern = dataclasses.replace(pattern, reduce=self.score_reduce)
        blocks = self.score_reduce == "max" and isinstance(pattern, (Block, Slice))
        if blocks and isinstance(self._method, RunningScore):
            self._method.units = pattern
        return pattern

    def _get_budget(self) -> Budget:
        if not self.global_sparsity:
            return Uniform(down=True)
        goal, cap = self._goal(), self.max_sparsity_per_param
        cap = max(_CAP, goal) if cap is None else cap
        return Reserving(cap, self.min_sparsity_per_param or 0.0, goal)

    def _scheduled(self, epoch: float, finals: Sequence[float]) -> list[float]:
        start, end, every = self._start_epoch, self._end_epoch, self._update_frequency
        return super()._scheduled(over_whole_intervals(epoch, start, end, every), finals)
