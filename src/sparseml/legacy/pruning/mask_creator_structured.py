"""Masks of whole filters or channels, consistent across layers that depend on each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparseml.legacy.pruning.mask_creator_base import Target
from sparseml.legacy.pruning.mask_creator_grouped import GroupedPruningMaskCreator

__all__ = ["StructuredPruningMaskCreator"]

_DIMS = {"filter": 0, "channel": 1}


class StructuredPruningMaskCreator(GroupedPruningMaskCreator):
    """Prunes whole filters (dimension 0) or channels (dimension 1).

    Tensors of one group are masked alike, by the sum of their scores. If in such a group the
    dimension of one tensor is a multiple (the stride) of the smallest one, as where a convolution
    feeds a linear layer, each of the smallest one's slices stands for that many neighbours. A
    tensor whose dimension has size 1 (a depthwise convolution's input) is left unmasked.

    :param structure_type: ``filter`` or ``channel``
    :param grouping_fn_name: ``l2`` or ``mean`` of a slice's scores
    :param tensor_group_idxs: indices of the tensors that belong together; together they must cover
        every tensor once. None: every tensor on its own
    :raises ValueError: for another structure type
    """

    def __init__(
        self,
        structure_type: str,
        grouping_fn_name: str = "l2",
        tensor_group_idxs: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if structure_type not in _DIMS:
            raise ValueError(
                f"structure_type must be one of {list(_DIMS)}, found {structure_type!r}"
            )
        self._structure_type = structure_type
        self._dim = _DIMS[structure_type]
        self._grouping_fn_name = grouping_fn_name
        self._tensor_group_idxs: list[list[int]] | None = None
        self.set_tensor_group_idxs(tensor_group_idxs)

    def __str__(self) -> str:
        return self._structure_type

    @property
    def structure_type(self) -> str:
        """``filter`` or ``channel``."""
        return self._structure_type

    @property
    def tensor_group_idxs(self) -> list[list[int]] | None:
        """Indices of the tensors that are masked alike."""
        return self._tensor_group_idxs

    def set_tensor_group_idxs(self, tensor_group_idxs: Sequence[Sequence[int]] | None) -> None:
        """Say which tensors belong together; None puts each on its own."""
        self._tensor_group_idxs = (
            None if tensor_group_idxs is None else [list(group) for group in tensor_group_idxs]
        )

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """As in the base class.

        :raises ValueError: for ``global_sparsity``: slices of different layers do not compare; and
            for grouped tensors whose sizes are not multiples of the smallest
        :raises RuntimeError: when the groups do not cover every tensor exactly once
        """
        if global_sparsity:
            raise ValueError(
                f"{self._structure_type} masks are made per layer: global_sparsity must be False"
            )
        return super().create_sparsity_masks(tensors, target, global_sparsity)

    def unit_counts(self, tensors: Sequence[Tensor], names: Sequence[str]) -> list[int]:
        """How many units each tensor has; in a group, that is what its smallest has.

        :raises ValueError: naming the tensor that has no such units, or the group that does not fit
        """
        for tensor, name in zip(tensors, names, strict=True):
            if tensor.ndim <= self._dim:
                raise ValueError(
                    f"{name} of shape {tuple(tensor.shape)} has no {self._structure_type}s"
                )
        try:
            return [unit.numel() for unit in self._units(list(tensors))]
        except ValueError as error:
            groups = [[names[i] for i in group] for group in self._groups(len(tensors))]
            raise ValueError(f"{error}; the groups are {groups}") from error

    def group_tensor(self, tensor: Tensor) -> Tensor:
        """One score per slice, shape ``[slices]``.

        :raises ValueError: for channels of a vector
        """
        if tensor.ndim <= self._dim:
            raise ValueError(
                f"{self._structure_type} masks need a dimension {self._dim}, found a tensor of "
                f"shape {tuple(tensor.shape)}"
            )
        others = [dim for dim in range(tensor.ndim) if dim != self._dim]
        if not others:
            return tensor.abs() if self._grouping_fn_name == "l2" else tensor
        return self.reduce_tensor(tensor, others, self._grouping_fn_name, keepdim=False)

    def _units(self, tensors: list[Tensor]) -> list[Tensor]:
        units = super()._units(tensors)
        for group in self._groups(len(tensors)):
            members = [index for index in group if units[index].numel() > 1]
            if len(members) > 1:
                shared = _summed([units[index] for index in members])
                units = [shared if i in members else unit for i, unit in enumerate(units)]
        return units

    def _map_mask_to_tensor(
        self, grouped_mask: Tensor, original_tensor_shape: torch.Size, tensor_idx: int | None = None
    ) -> Tensor:
        size = original_tensor_shape[self._dim]
        shape = [1] * len(original_tensor_shape)
        shape[self._dim] = size
        if size <= 1:
            grouped_mask = torch.ones_like(grouped_mask)
        slices = grouped_mask.repeat_interleave(max(size // max(grouped_mask.numel(), 1), 1))
        return slices.reshape(shape).expand(original_tensor_shape).contiguous()

    def _groups(self, count: int) -> list[list[int]]:
        if self._tensor_group_idxs is None:
            return []
        covered = sorted(index for group in self._tensor_group_idxs for index in group)
        if covered != list(range(count)):
            raise RuntimeError(
                f"tensor_group_idxs must hold every index from 0 to {count - 1} exactly once, "
                f"found {self._tensor_group_idxs}"
            )
        return self._tensor_group_idxs


def _summed(units: list[Tensor]) -> Tensor:
    smallest = min(unit.numel() for unit in units)
    sizes = [unit.numel() for unit in units]
    if any(size % smallest for size in sizes):
        raise ValueError(
            f"tensors that are masked alike must have sizes that are multiples of the smallest, "
            f"found {sizes}"
        )
    return torch.stack([unit.reshape(smallest, -1).mean(dim=1) for unit in units]).sum(dim=0)
