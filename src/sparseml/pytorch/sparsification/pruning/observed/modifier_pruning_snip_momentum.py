"""Gradual pruning by saliency with momentum."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Conv2d, Dropout, Linear, Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.budgets import Budget, Reserving, Uniform
from sparseml.pytorch.functional.patterns import Block, Pattern, PerTensor, Slice
from sparseml.pytorch.functional.schedules import over_whole_intervals
from sparseml.pytorch.functional.scores import gradient, product, saliency, shared_in_units
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_optional_names,
    between,
    declared_fields,
    field,
    new_field,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.elementwise import Magnitude
from sparseml.pytorch.sparsification.pruning.methods.method import Method
from sparseml.pytorch.sparsification.pruning.methods.retrain_free import RetrainFree
from sparseml.pytorch.sparsification.pruning.methods.running import RunningScore
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.observed.group_lasso import REG_TYPES, GroupLasso
from sparseml.pytorch.sparsification.pruning.observed.heads import HighestOfHeads, heads_among
from sparseml.pytorch.sparsification.pruning.observed.sub_steps import SubSteps
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    PatternFields,
    as_count,
    as_optional_keywords,
    checked_pattern,
    optional,
    out_in_shapes,
)
from sparseml.pytorch.units import UnitGroup
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.utils.text import shown

_LOGGER = logging.getLogger(__name__)
_HEADS = "heads"
_CAP = 0.98
_ROUNDING = 1e-9  # an interval of 3 steps in epochs is not exactly 3
_SCORES = ("snip_momentum", "snip", "gradient", "magnitude", "block_mask", "retrain_free")


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
    No other modifier may prune its parameters at the same time.

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
    :param mask_type: what is pruned together: ``unstructured``, ``block4``, ``N:M``, ``filter``,
        ``channel``, ``RxC``, ``1xchannel``, ``channelx1``, ``[out, in]``; or ``heads``, each with
        its rows of query, key and value and its columns of the output projection
    :param score_type: ``snip_momentum``; ``snip`` or ``gradient``, of the last step alone;
        ``magnitude``; ``block_mask``, the running ``|sum of gradient * weight|`` of each block; or
        ``retrain_free``, which samples gradients and chooses rows or columns that go well together
    :param score_decay: how much of the running score outlives a step
    :param score_gain: what a step's score is multiplied by
    :param score_reduce: how the scores of a unit's weights are summed up: ``mean``, ``sum`` or
        ``max``; in blocks the highest score of each step is what is added to the running score
    :param score_dtype: to keep running scores in, ``float32`` (``float64`` for such weights) or
        ``bfloat16``
    :param layer_types: prune only in layers whose class name contains one of these
    :param skip_indivisible: leave parameters dense that ``mask_type`` does not divide, instead of
        an error
    :param spare_head: leave the last layer of the model dense, if it is linear or a convolution
    :param progressive_steps: let what an update prunes go in so many parts, lowest scores first,
        instead of at once; the last update is in force as a whole at the end
    :param reg_type: shrink units while pruning goes on: ``group_lasso``, by the norm of their
        weights, or ``group_lasso_by_gradient``, by that of their gradients
    :param reg_coeff: how much ``reg_type`` shrinks in each step, whatever the learning rate
    :param num_grads: with ``retrain_free``, batches to sample gradients from for each update
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
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
    spare_head: bool = new_field(as_flag, default=False)
    progressive_steps: int = new_field(as_count, default=1)
    reg_type: str | None = new_field(optional(one_of(REG_TYPES)), default=None)
    reg_coeff: float = new_field(between(0.0), default=0.0)
    num_grads: int = new_field(as_count, default=64)
    grad_sampler_kwargs: Mapping[str, Any] | None = new_field(as_optional_keywords, default=None)

    _order_dependence = "its scores are summed up over the steps of training"
    _stops_short = True
    _alone = True  # no other may prune its parameters at the same time
    _progress: ClassVar[tuple[str, ...]] = ("_sub_steps",)

    def _set_up(self) -> None:
        self._sub_steps = SubSteps(1)
        self._heads: list[UnitGroup] = []  # of what was selected last
        self._lasso: GroupLasso | None = None
        name = type(self).__name__
        if (self.reg_type is None) != (self.reg_coeff == 0.0):
            raise ValueError(
                f"reg_type and reg_coeff of {name} need each other, found "
                f"reg_type {self.reg_type!r} and reg_coeff {self.reg_coeff:g}"
            )
        if self.score_type == "retrain_free" and self.progressive_steps > 1:
            raise ValueError(
                f"progressive_steps of {name} must be 1 with score_type 'retrain_free', which "
                f"chooses what goes together, found {self.progressive_steps}"
            )

    @property
    def order_dependence(self) -> str:
        """Why its masks depend on what training did before; "" for scores of weights alone."""
        fixed = ("magnitude", "retrain_free")
        return "" if self.score_type in fixed else self._order_dependence

    def select(
        self, module: Module, params: str | Iterable[str], strict: bool | None = None
    ) -> list[NamedLayerParam]:
        """Return the parameters that entries mean, without those of other layers or sizes."""
        found = super().select(module, params, strict)
        head = _head(module) if self.spare_head else None
        kept = [one for one in found if one.layer is not head and self._fits(one)]
        if self._mask_type == _HEADS and kept:
            self._heads = heads_among(module, kept)
            names = {name for group in self._heads for name in group.masked}
            kept = [one for one in kept if one.name in names]
        if found and not kept:
            raise ValueError(
                f"mask_type, layer_types, spare_head and skip_indivisible of {type(self).__name__} "
                f"leave nothing of what params {shown(params)} select"
            )
        return kept

    def _fits(self, one: NamedLayerParam) -> bool:
        kinds, kind = self.layer_types, type(one.layer).__name__
        if kinds is not None and not any(name in kind for name in kinds):
            return False
        if not self.skip_indivisible or self._mask_type == _HEADS:
            return True
        pattern = checked_pattern(self._mask_type, [])
        try:
            pattern.check(out_in_shapes([one])[0])
        except ValueError as error:
            _LOGGER.warning("%s is left dense: %s", one.name, error)
            return False
        return True

    def _get_method(self) -> Method:
        kind = self.score_type
        if kind == "magnitude":
            return Magnitude()
        if kind == "retrain_free":
            return RetrainFree(self.num_grads)
        decay = self.score_decay if kind in ("snip_momentum", "block_mask") else 0.0
        score = {"gradient": gradient, "block_mask": product}.get(kind, saliency)
        dtype = torch.bfloat16 if self.score_dtype == "bfloat16" else None
        return RunningScore(score, decay, self.score_gain, dtype, kind == "block_mask")

    def _get_pattern(self, selected: Sequence[NamedLayerParam]) -> Pattern:
        heads = self._mask_type == _HEADS
        mask_type: Any = self._heads if heads else self._mask_type
        pattern: Any = checked_pattern(mask_type, selected)
        self._require_units(pattern)
        if any(one.name == "reduce" for one in dataclasses.fields(pattern)):
            # the highest of a head is that of each part, found at each step, and then their mean
            reduce = "mean" if heads and self.score_reduce == "max" else self.score_reduce
            pattern = dataclasses.replace(pattern, reduce=reduce)
        return pattern

    def _require_units(self, pattern: Pattern) -> None:
        blocks = isinstance(pattern, (Block, Slice))
        whole = isinstance(pattern, Slice) or (
            isinstance(pattern, Block) and -1 in (pattern.rows, pattern.cols)
        )
        wanted = {
            f"reg_type {self.reg_type!r}": blocks or self.reg_type is None,
            f"score_type {self.score_type!r}": blocks or self.score_type != "block_mask",
        }
        for what, fits in wanted.items():
            if not fits:
                raise ValueError(
                    f"{what} of {type(self).__name__} needs blocks that go as a whole, as in "
                    f"mask_type '4x1' or '1xchannel', found mask_type {self._mask_type!r}"
                )
        if self.score_type == "retrain_free" and not whole:
            raise ValueError(
                f"score_type 'retrain_free' of {type(self).__name__} needs whole rows or columns, "
                f"as in mask_type 'channelx1', found mask_type {self._mask_type!r}"
            )

    def _prepare(self, selected: Sequence[NamedLayerParam]) -> None:
        super()._prepare(selected)
        pattern, method = self._pattern, self._method
        self._sub_steps = SubSteps(self.progressive_steps)
        self._lasso = None
        blocks = pattern if isinstance(pattern, (Block, Slice)) else None
        if blocks and self.reg_type is not None:
            self._lasso = GroupLasso(self.reg_type, blocks, self.reg_coeff)
        if not isinstance(method, RunningScore):
            return
        if blocks and self.score_type == "block_mask":
            method.shared = _Shared(blocks, "sum")
        elif self.score_reduce == "max" and self._mask_type == _HEADS:
            method.shared = HighestOfHeads(self._heads, selected)
        elif blocks and self.score_reduce == "max":
            method.shared = _Shared(blocks, "max")

    def _get_budget(self) -> Budget:
        if not self.global_sparsity:
            return Uniform(down=True)
        goal, cap = self._goal(), self.max_sparsity_per_param
        cap = max(_CAP, goal) if cap is None else cap
        return Reserving(cap, self.min_sparsity_per_param or 0.0, goal)

    def _scheduled(self, epoch: float, finals: Sequence[float]) -> list[float]:
        start, end, every = self._start_epoch, self._end_epoch, self._update_frequency
        return super()._scheduled(over_whole_intervals(epoch, start, end, every), finals)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Update the masks, with ``progressive_steps`` only the first part of what changes."""
        steps = self._sub_steps
        steps.step = round(epoch * steps_per_epoch)
        if not epoch >= self._end_epoch >= 0.0:
            every = self._update_frequency * steps_per_epoch + _ROUNDING
            steps.interval = self._update_steps or max(math.floor(every), 1)
        super().update(module, optimizer, epoch, steps_per_epoch)
        steps.interval = 1

    def apply_target(self, module: Module, target: Any) -> None:
        """Bring the parameters to the sparsity asked for, or the first part of the way."""
        target = self._remaining(target, [param.numel() for param in self._masks.params])
        problem = self.problem(module)
        outcome = self._method.outcomes(problem, [target])[0]
        self._masks.take(self._sub_steps.begin(outcome, problem, self._method.scores))

    def optimizer_pre_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Look at the gradients, and prune the next part where ``progressive_steps`` is due."""
        super().optimizer_pre_step(module, optimizer, epoch, steps_per_epoch)
        if lasso := self._shrinking(epoch):
            lasso.measure(self._masks)
        if self._sub_steps.due(round(epoch * steps_per_epoch)):
            part = self._sub_steps.proceed(self.problem(module), self._method.scores)
            self._masks.take(part, optimizer)

    def optimizer_post_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Shrink units with ``reg_type``, and mask the weights."""
        if lasso := self._shrinking(epoch):
            lasso.shrink(self._masks)
        super().optimizer_post_step(module, optimizer, epoch, steps_per_epoch)

    def _shrinking(self, epoch: float) -> GroupLasso | None:
        in_time = self._end_epoch < 0.0 or epoch <= self._end_epoch
        return self._lasso if self._started and in_time else None


class _Shared:
    """What the weights of a unit share of a step's score."""

    def __init__(self, units: PerTensor, reduce: str) -> None:
        self._units, self._reduce = units, reduce

    def __call__(self, name: str, scores: Tensor) -> Tensor:
        return shared_in_units(scores, self._units, self._reduce)


def _head(module: Module) -> Module | None:
    last = [layer for layer in module.modules() if not isinstance(layer, Dropout)][-1]
    return last if isinstance(last, (Linear, Conv2d)) else None
