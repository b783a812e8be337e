"""Mask creators by the names and with the methods that SparseML had before its modifiers' own.

They are those of :mod:`sparseml.legacy.pruning.mask_creator`. These can in addition make masks from
a threshold, or from what is zero already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from sparseml.legacy.pruning import mask_creator
from sparseml.legacy.pruning.mask_creator import (
    GroupedPruningMaskCreator,
    PruningMaskCreator,
    Target,
)
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


class UnstructuredPruningMaskCreator(mask_creator.UnstructuredPruningMaskCreator):
    """Prunes single entries."""

    def create_sparsity_masks(
        self, tensors: list[Tensor], sparsity: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Return masks that prune what has the lowest scores.

        :param tensors: scores, higher = more important
        :param sparsity: fraction to prune, one float for all or a list with one for each
        :param global_sparsity: rank the entries of all tensors together
        """
        return super().create_sparsity_masks(tensors, sparsity, global_sparsity)

    def create_sparsity_masks_from_tensor(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return masks that prune what is zero as a whole."""
        return self._masks_where(lambda units: units != 0, [tensor.abs() for tensor in tensors])

    def create_sparsity_masks_from_threshold(
        self, tensors: list[Tensor], threshold: float | Tensor
    ) -> list[Tensor]:
        """Return masks that keep the scores above a threshold."""
        return self._masks_where(lambda units: units > threshold, tensors)

    def _masks_where(self, kept: Callable[[Tensor], Tensor], tensors: list[Tensor]) -> list[Tensor]:
        pattern = self._pattern_for(len(tensors))
        keep = [kept(pool.scores) for pool in pattern.pools([each.detach() for each in tensors])]
        return in_dtypes_of(tensors, pattern.masks(keep, tensors))


class FourBlockMaskCreator(UnstructuredPruningMaskCreator, mask_creator.FourBlockMaskCreator):
    """Prunes runs of four inputs."""

    def __str__(self) -> str:
        return "block"


class BlockPruningMaskCreator(UnstructuredPruningMaskCreator, mask_creator.BlockMaskCreator):
    """Prunes ``[out, in]`` blocks, taken in row-major order."""


class DimensionSparsityMaskCreator(
    UnstructuredPruningMaskCreator, mask_creator.StructuredPruningMaskCreator
):
    """Prunes whole filters or channels.

    :param dim: ``"filter"``, 0 or [0]; ``"channel"``, 1 or [1]
    :param grouping_fn_name: ``l2`` or ``mean`` of a slice's scores
    :param tensor_group_idxs: indices of the tensors that are masked alike
    :raises ValueError: for another ``dim``
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


def load_mask_creator(obj: Any) -> PruningMaskCreator:
    """Return the mask creator that a text, a list or a mask creator stands for.

    :param obj: ``"unstructured"``, ``"block"``, ``"channel"``, ``"filter"``, a block as ``[1, 4]``
        or ``"[1, 4]"``, or a mask creator, which is returned as it is
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
    raise ValueError(
        "a mask creator is 'unstructured', 'block', 'channel', 'filter' or a block as [1, 4], "
        f"found {obj!r}"
    )
