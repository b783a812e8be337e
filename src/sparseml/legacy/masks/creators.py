"""Mask creators by the names and with the methods that SparseML had before its modifiers' own.

What they prune is what those of :mod:`sparseml.legacy.pruning.mask_creator` do. The argument is
called ``sparsity``, and masks can also be made from a threshold, or from what is zero already.
Classes of users derive from :class:`PruningMaskCreator` or :class:`GroupedPruningMaskCreator`.
"""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparseml.legacy.pruning import mask_creator
from sparseml.legacy.pruning.mask_creator import Target
from sparseml.legacy.pruning.mask_creator_base import in_dtypes_of

__all__ = [
    "BlockPruningMaskCreator",
    "DimensionSparsityMaskCreator",
    "FourBlockMaskCreator",
    "GroupedPruningMaskCreator",
    "PruningMaskCreator",
    "UnstructuredPruningMaskCreator",
    "load_mask_creator",
]

_STRUCTURES = {"channel": "channel", 1: "channel", "filter": "filter", 0: "filter"}


class PruningMaskCreator(mask_creator.PruningMaskCreator):
    """Makes masks (1 = keep, 0 = prune) of tensors."""

    @abstractmethod
    def create_sparsity_masks(
        self, tensors: list[Tensor], sparsity: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Return masks as of :meth:`mask_creator.PruningMaskCreator.create_sparsity_masks`."""

    @abstractmethod
    def create_sparsity_masks_from_tensor(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return masks that prune what is zero."""

    @abstractmethod
    def create_sparsity_masks_from_threshold(
        self, tensors: list[Tensor], threshold: float | Tensor
    ) -> list[Tensor]:
        """Return masks that keep the scores above a threshold."""


class UnstructuredPruningMaskCreator(
    mask_creator.UnstructuredPruningMaskCreator, PruningMaskCreator
):
    """Prunes single entries."""

    def create_sparsity_masks(
        self, tensors: list[Tensor], sparsity: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        return super().create_sparsity_masks(tensors, sparsity, global_sparsity)

    def create_sparsity_masks_from_tensor(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return masks that prune what is zero as a whole."""
        return self._masks_where(lambda units: units != 0, [tensor.abs() for tensor in tensors])

    def create_sparsity_masks_from_threshold(
        self, tensors: list[Tensor], threshold: float | Tensor
    ) -> list[Tensor]:
        return self._masks_where(lambda units: units > threshold, tensors)

    def _masks_where(self, kept: Callable[[Tensor], Tensor], tensors: list[Tensor]) -> list[Tensor]:
        pattern = self._pattern_for(len(tensors))
        keep = [kept(pool.scores) for pool in pattern.pools([each.detach() for each in tensors])]
        return in_dtypes_of(tensors, pattern.masks(keep, tensors))


class GroupedPruningMaskCreator(
    mask_creator.GroupedPruningMaskCreator, UnstructuredPruningMaskCreator
):
    """Prunes groups of entries by one score each.

    A class says in ``group_tensor(tensor)`` which score each group has, and in
    ``_map_mask_to_tensor(grouped_mask, original_tensor_shape)`` how a mask of groups spreads over
    the tensor; it may take ``tensor_idx``, the position of the tensor, as a third argument.
    """

    def create_sparsity_masks(
        self, tensors: list[Tensor], sparsity: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        return super().create_sparsity_masks(tensors, sparsity, global_sparsity)

    def _masks_where(self, kept: Callable[[Tensor], Tensor], tensors: list[Tensor]) -> list[Tensor]:
        return self._spread([kept(self.group_tensor(each.detach())) for each in tensors], tensors)

    def _spread(self, masks: Sequence[Tensor], tensors: list[Tensor]) -> list[Tensor]:
        spread: Any = self._map_mask_to_tensor
        given: list[Any] = [masks, [tensor.shape for tensor in tensors]]
        if len(inspect.signature(spread).parameters) > 2:
            given.append(range(len(tensors)))
        return in_dtypes_of(tensors, [torch.as_tensor(mask) != 0 for mask in map(spread, *given)])


class FourBlockMaskCreator(mask_creator.FourBlockMaskCreator, GroupedPruningMaskCreator):
    """Prunes runs of four inputs."""

    def __str__(self) -> str:
        return "block"


class BlockPruningMaskCreator(mask_creator.BlockMaskCreator, GroupedPruningMaskCreator):
    """Prunes ``[out, in]`` blocks, taken in row-major order."""


class DimensionSparsityMaskCreator(
    mask_creator.StructuredPruningMaskCreator, GroupedPruningMaskCreator
):
    """Prunes whole filters or channels.

    :param dim: ``"filter"``, 0 or [0]; ``"channel"``, 1 or [1]; else a ValueError
    """

    def __init__(
        self,
        dim: str | int | Sequence[int],
        grouping_fn_name: str = "l2",
        tensor_group_idxs: Sequence[Sequence[int]] | None = None,
    ) -> None:
        one = dim[0] if isinstance(dim, (list, tuple)) and len(dim) == 1 else dim
        if not isinstance(one, (str, int)) or one not in _STRUCTURES:
            raise ValueError(f"dim must be 'filter', 0, 'channel' or 1, found {dim!r}")
        super().__init__(_STRUCTURES[one], grouping_fn_name, tensor_group_idxs)

    def create_sparsity_masks(
        self, tensors: list[Tensor], sparsity: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        return super().create_sparsity_masks(tensors, sparsity, global_sparsity)

    # its pattern knows which tensors are masked alike
    _masks_where = UnstructuredPruningMaskCreator._masks_where


def load_mask_creator(obj: Any) -> PruningMaskCreator:
    """Return the mask creator that a text or a list stands for, or a mask creator as it is.

    :param obj: ``"unstructured"``, ``"block"``, ``"channel"``, ``"filter"``, ``[1, 4]`` or its text
    :raises ValueError: for anything else
    """
    if isinstance(obj, PruningMaskCreator):
        return obj
    if isinstance(obj, str) and re.fullmatch(r"[\[(][-\d,\s]+[\])]", obj.strip()):
        obj = [int(number) for number in re.findall(r"-?\d+", obj)]
    if isinstance(obj, (list, tuple)) and all(isinstance(size, int) for size in obj):
        return DimensionSparsityMaskCreator(obj) if len(obj) < 2 else BlockPruningMaskCreator(obj)
    if obj == "unstructured":
        return UnstructuredPruningMaskCreator()
    if obj == "block":
        return FourBlockMaskCreator()
    if obj in ("channel", "filter"):
        return DimensionSparsityMaskCreator(obj)
    known = "'unstructured', 'block', 'channel', 'filter' or a block as [1, 4]"
    raise ValueError(f"a mask creator is {known}, found {obj!r}")
