"""Masks that keep N of every M inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseml.legacy.pruning.mask_creator_base import (
    PruningMaskCreator,
    Target,
    common_target,
    join_units,
    one_target_each,
    split_like,
)
from sparseml.pytorch.functional.patterns import NM
from sparseml.pytorch.functional.selection import lowest_mask, prune_count, require_numbers

__all__ = ["NMPruningMaskCreator"]

_TOLERANCE = 1e-2


class NMPruningMaskCreator(PruningMaskCreator):
    """Keeps N of every M consecutive inputs; the sparsity can only be ``1 - N/M``.

    :param N: how many of a group are kept
    :param M: the size of a group
    :raises ValueError: unless 0 < N < M
    """

    def __init__(self, N: int = 2, M: int = 4) -> None:
        self._pattern = NM(N, M)
        self._N = N
        self._M = M
        self.fixed_sparsity = self._pattern.full_sparsity

    def __str__(self) -> str:
        return f"{self._N}:{self._M}"

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Masks that keep the N largest *absolute values* of every group.

        As in SparseML 1.x a matrix is cut along its last dimension, and the mask of a convolution's
        weight ``[O, I, H, W]`` comes in the layout ``[O, H, W, I]``, in which the groups are
        neighbours. :meth:`create_parameter_masks` gives masks in the layout of the weights.

        :param target: 0.0 for all tensors gives ones, else ``1 - N/M`` (to within 0.01)
        :raises ValueError: for another target, or a size that is no multiple of M
        :raises NotImplementedError: for tensors of other than two or four dimensions
        """
        if _is_all_zero(target):
            return [torch.ones_like(tensor) for tensor in tensors]
        for sparsity in one_target_each(target, len(tensors)):
            if not self._is_full(sparsity):
                raise ValueError(
                    f"a {self} mask has a sparsity of {self._pattern.full_sparsity:g}, "
                    f"found {sparsity}"
                )
        return [self._flat_groups_mask(tensor) for tensor in tensors]

    def _parameter_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool
    ) -> list[Tensor]:
        """Masks in the layout of the parameters, by the scores as they are.

        Groups run along the second dimension, for convolutions at each kernel position. A target
        between 0 and ``1 - N/M`` puts that share of the groups into the pattern, those that lose
        least; the others stay dense. So a gradual schedule may lead up to the pattern.

        :raises ValueError: for a target beyond ``1 - N/M`` or an input dimension that is no
            multiple of M
        """
        targets = [self._unit_sparsity(s) for s in one_target_each(target, len(tensors))]
        units = [self._pattern.unit_scores(tensor) for tensor in tensors]
        if global_sparsity and tensors:
            joined = join_units(units)
            count = prune_count(joined.numel(), common_target(targets))
            keep = split_like(lowest_mask(joined, count), units)
        else:
            keep = [
                lowest_mask(unit, prune_count(unit.numel(), sparsity))
                for unit, sparsity in zip(units, targets, strict=True)
            ]
        return [
            self._pattern.expand(unit, tensor).to(tensor.dtype)
            for unit, tensor in zip(keep, tensors, strict=True)
        ]

    def _is_full(self, sparsity: float) -> bool:
        return abs(sparsity - self._pattern.full_sparsity) <= _TOLERANCE

    def _unit_sparsity(self, sparsity: float) -> float:
        return 1.0 if self._is_full(sparsity) else self._pattern.unit_sparsity(max(sparsity, 0.0))

    def _flat_groups_mask(self, tensor: Tensor) -> Tensor:
        if tensor.numel() % self._M:
            raise ValueError(
                f"a tensor of shape {tuple(tensor.shape)} cannot be cut into groups of {self._M}"
            )
        if tensor.ndim not in (2, 4):
            raise NotImplementedError(
                f"{self} masks are made for two or four dimensions, found {tensor.ndim}"
            )
        require_numbers(tensor)
        channels_last = tensor.movedim(1, -1)
        groups = channels_last.reshape(-1, self._M).abs()
        order = groups.sort(dim=1, descending=True, stable=True).indices
        mask = torch.zeros_like(groups).scatter_(1, order[:, : self._N], 1.0)
        return mask.reshape(channels_last.shape)


def _is_all_zero(target: Target) -> bool:
    values = target if isinstance(target, (list, tuple)) else [target]
    return all(isinstance(value, float) and value == 0.0 for value in values)
