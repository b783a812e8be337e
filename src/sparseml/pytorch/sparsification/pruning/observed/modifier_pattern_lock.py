"""Keeping the units of a pattern pruned that are so already."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from torch.nn import Module

from sparseml.pytorch.functional.patterns import Pattern, PerTensor
from sparseml.pytorch.sparsification.fields import as_given, declared_fields, field, fixed, stated
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.elementwise import KeepZeros
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.sparsification.pruning.settings.fields import MaskType
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import local_part

_LOGGER = logging.getLogger(__name__)


@PyTorchModifierYAML()
@declared_fields()
class PatternLockModifier(BasePruningModifier):
    """Keeps those units zero that are pruned when it starts, as Intel's ``pattern_lock`` does.

    For fine-tuning a pruned model. A block is pruned if all of its weights are zero, a group of
    N:M if no more than N of its weights are not. Zeros elsewhere are free to change.

    | Sample yaml:
    |   !PatternLockModifier
    |       params: ['re:.*(query|key|value|dense).weight']
    |       mask_type: '2:4'
    |       start_epoch: 0.0

    :param mask_type: what was pruned together: ``unstructured``, ``N:M``, ``RxC``, ``1xchannel``,
        ``channelx1``, ``block4``, ``filter``, ``channel`` or ``[out, in]``
    :param update_frequency: always -1
    :param leave_enabled: keep the masks in force after the end
    :param global_sparsity: always False
    """

    params: str | Iterable[str]
    start_epoch: float = -1.0
    end_epoch: float = -1.0
    mask_type: MaskType = field(as_given, default="unstructured")
    update_frequency: float = stated(default=-1.0, why="the masks never change")
    end_comparator: int = fixed(-1)
    leave_enabled: bool = True
    global_sparsity: bool = stated(default=False, why="nothing is ranked")
    _decides_once = True
    _order_dependence = ""

    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> None:
        """Return None: the sparsity is that of the parameters."""
        return None

    def _get_method(self) -> KeepZeros:
        return KeepZeros()

    def _get_pattern(self, selected: Sequence[NamedLayerParam]) -> Pattern:
        pattern = super()._get_pattern(selected)
        if not isinstance(pattern, PerTensor):
            raise ValueError(
                f"mask_type of {type(self).__name__} must cut each parameter by itself, found "
                f"{self._mask_type!r}"
            )
        return pattern

    def apply_target(self, module: Module, target: Any) -> None:
        """Find what is pruned, and say so if nothing is."""
        super().apply_target(module, target)
        if all(bool(local_part(mask).all()) for mask in self._masks.masks):
            _LOGGER.warning(
                "%s keeps nothing: no unit of mask_type %r is pruned in any of its %d parameters",
                type(self).__name__,
                self._mask_type,
                len(self._masks),
            )
