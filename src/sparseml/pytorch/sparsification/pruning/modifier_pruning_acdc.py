"""Alternating compressed / decompressed training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.patterns import Pattern
from sparseml.pytorch.functional.schedules import is_dense_phase
from sparseml.pytorch.sparsification.fields import as_flag, as_given, declared_fields, field
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.masks.optimizer_state import zero_momentum
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    MaskType,
    as_inner_fraction,
    require_reachable,
)
from sparseml.pytorch.sparsification.pruning.settings.limits import require_sensible_limits
from sparseml.pytorch.utils.params import NamedLayerParam


@PyTorchModifierYAML()
@declared_fields()
class ACDCPruningModifier(BasePruningModifier):
    """Trains densely and sparsely in turn: Peste et al., "AC/DC" (2021).

    Phases of ``update_frequency`` epochs alternate from ``start_epoch`` on, the first one dense. A
    dense phase frees all weights, the pruned ones from zero. The last phases are sparse.

    | Sample yaml:
    |   !ACDCPruningModifier
    |       compression_sparsity: 0.9
    |       start_epoch: 0.0
    |       end_epoch: 100.0
    |       update_frequency: 5.0
    |       params: __ALL_PRUNABLE__

    :param compression_sparsity: of the sparse phases, strictly between 0 and 1
    :param start_epoch: a whole number, as are ``end_epoch`` and ``update_frequency``; what is given
        in optimizer steps instead may be any
    :param update_frequency: epochs in a phase, at least 1
    :param momentum_buffer_reset: zero the optimizer's momentum when a dense phase follows a sparse
        one
    :param mask_type: ``unstructured``, ``block4``, ``N:M``, ``filter``, ``channel``, ``RxC``, or
        ``[out, in]``
    :raises ValueError: for a schedule that is not in whole epochs, or a sparsity out of range
    """

    compression_sparsity: float = field(as_inner_fraction)
    start_epoch: float
    end_epoch: float
    update_frequency: float
    params: str | Iterable[str]
    global_sparsity: bool = True
    leave_enabled: bool = True
    momentum_buffer_reset: bool = field(as_flag, default=True)
    mask_type: MaskType = field(as_given, default="unstructured")
    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None
    _progress: ClassVar[tuple[str, ...]] = ("_is_phase_decompression",)
    _order_dependence = "it takes its masks off and decides anew between phases of training"

    def _set_up(self) -> None:
        self._is_phase_decompression = True
        self._momentum_reset_due = False
        require_sensible_limits(self, "compression_sparsity")

    def _goal(self) -> float:
        return self.compression_sparsity

    def validate_schedule(self) -> None:
        """:raises ValueError: for a start or end that is not a whole number of epochs"""
        super().validate_schedule()
        for name, step in (("start_epoch", self._start_step), ("end_epoch", self._end_step)):
            if step is None:
                self._require_whole(name, getattr(self, name))

    def validate_update(self) -> None:
        """:raises ValueError: for phases that are not a whole number of epochs, at least 1"""
        super().validate_update()
        self._require_whole("update_frequency", self._update_frequency, least=1.0)
        self._update_frequency = int(self._update_frequency)

    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> float:
        """0.0 in dense phases, ``compression_sparsity`` in sparse ones and in one shot."""
        bounds = (self._start_epoch, self._end_epoch, self._update_frequency)
        return 0.0 if is_dense_phase(epoch, *bounds) else self.compression_sparsity

    def check_mask_update(self, *args: Any, **kwargs: Any) -> None:
        """Update the masks; a dense phase after a sparse one shall start without momentum."""
        before = self._applied_sparsity
        super().check_mask_update(*args, **kwargs)
        self._is_phase_decompression = not self._applied_sparsity
        self._momentum_reset_due = bool(before) and not self._applied_sparsity

    def optimizer_post_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Mask the weights; zero all momentum once if a dense phase has begun."""
        super().optimizer_post_step(module, optimizer, epoch, steps_per_epoch)
        if self._momentum_reset_due and self.momentum_buffer_reset:
            zero_momentum(optimizer)
        self._momentum_reset_due = False

    def _get_pattern(self, selected: Sequence[NamedLayerParam]) -> Pattern:
        pattern = super()._get_pattern(selected)
        require_reachable(pattern, self.compression_sparsity, "compression_sparsity")
        return pattern

    def _require_whole(self, name: str, value: float, least: float = -1.0) -> None:
        if not float(value).is_integer() or value < least:
            raise ValueError(
                f"{name} of {type(self).__name__} must be a whole number of epochs from {least:g} "
                f"on, found {value}; for anything else give it in optimizer steps"
            )
