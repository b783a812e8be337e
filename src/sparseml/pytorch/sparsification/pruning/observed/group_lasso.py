"""Group lasso beside pruning: units shrink as a whole before it is decided which ones go."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseml.pytorch.functional.group_lasso import factors_by_gradient, factors_by_weight
from sparseml.pytorch.functional.patterns import PerTensor
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.utils.layer_kinds import to_out_in
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import full_value, local_part, shard_like

REG_TYPES = ("group_lasso", "group_lasso_by_gradient")


class GroupLasso:
    """Shrinks the units of parameters after each optimizer step.

    :param kind: one of :data:`REG_TYPES`
    :param units: what is shrunk together
    :param strength: see :mod:`sparseml.pytorch.functional.group_lasso`
    """

    def __init__(self, kind: str, units: PerTensor, strength: float) -> None:
        self._by_gradient = kind == "group_lasso_by_gradient"
        self._units, self._strength = units, strength
        self._measured: list[Tensor | None] = []

    def measure(self, masks: MaskSet) -> None:
        """Look at the gradients, before the optimizer's step."""
        if self._by_gradient:
            self._measured = [self._factors(one, one.param.grad) for one in masks.found]

    @torch.no_grad()
    def shrink(self, masks: MaskSet) -> None:
        """Shrink the weights, after the optimizer's step."""
        factors = self._measured
        if not self._by_gradient:
            factors = [self._factors(one, one.param) for one in masks.found]
        for param, factor in zip(masks.params, factors, strict=False):
            if factor is not None:
                local_part(param).mul_(local_part(shard_like(factor.to(param.dtype), param)))
        self._measured = []

    def _factors(self, one: NamedLayerParam, values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        turned = to_out_in(one.layer, one.param_name, full_value(values))
        find = factors_by_gradient if self._by_gradient else factors_by_weight
        return to_out_in(one.layer, one.param_name, find(turned, self._units, self._strength))
