"""Mask creators in the form of SparseML 1.x for groups, and those that ``mask_type`` stands for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sparseml.legacy.pruning.mask_creator_base import (
    ConstantMaskCreator,
    NMPruningMaskCreator,
    PruningMaskCreator,
    Target,
    UnstructuredPruningMaskCreator,
    in_dtypes_of,
    one_target_each,
)
from sparseml.pytorch.functional.patterns import (
    FOUR_BLOCK,
    NM,
    MaskType,
    Pattern,
    PerTensor,
    RowMajorBlock,
    Runs,
    Slice,
    Together,
    Unstructured,
    parse_pattern,
    reduce_dims,
)

__all__ = [
    "BlockMaskCreator",
    "ConstantMaskCreator",
    "FourBlockMaskCreator",
    "GroupedPruningMaskCreator",
    "MaskType",
    "NMPruningMaskCreator",
    "PatternMaskCreator",
    "PruningMaskCreator",
    "StructuredPruningMaskCreator",
    "Target",
    "UnstructuredPruningMaskCreator",
    "creator_of",
    "get_mask_creator",
    "get_mask_creator_default",
]

_GROUPING_FNS = ("l2", "mean", "max", "min")
_DIMS = {"filter": 0, "channel": 1}


class GroupedPruningMaskCreator(UnstructuredPruningMaskCreator):
    """Prunes a fraction of the groups of entries, which subclasses define, by one score each."""

    def __str__(self) -> str:
        own = vars(self).get("_pattern")
        return type(self).__name__ if own is None else str(own)

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Return masks as the base class, made of the groups' scores as of single entries'."""
        groups = [self.group_tensor(tensor.detach()) for tensor in tensors]
        single = UnstructuredPruningMaskCreator()
        masks = single.create_sparsity_masks(groups, target, global_sparsity)
        return self._spread(masks, tensors)

    def _spread(self, masks: Sequence[Tensor], tensors: list[Tensor]) -> list[Tensor]:
        shapes, places = [tensor.shape for tensor in tensors], range(len(tensors))
        return in_dtypes_of(tensors, map(self._map_mask_to_tensor, masks, shapes, places))

    @abstractmethod
    def group_tensor(self, tensor: Tensor) -> Tensor:
        """Return one score per group."""

    @abstractmethod
    def _map_mask_to_tensor(
        self, grouped_mask: Tensor, original_tensor_shape: torch.Size, tensor_idx: int | None = None
    ) -> Tensor:
        """Spread a mask per group (shape of :meth:`group_tensor`'s result) over the tensor."""

    @staticmethod
    def reduce_tensor(
        tensor: Tensor, dim: int | Sequence[int], reduce_fn_name: str, keepdim: bool = True
    ) -> Tensor:
        """Sum up scores over dimensions by ``l2``, ``mean``, or over a single one ``max``, ``min``.

        :raises ValueError: for another name, or several dimensions with ``max`` or ``min``
        """
        _require_grouping(reduce_fn_name)
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
        if reduce_fn_name in ("max", "min") and len(dims) > 1:
            raise ValueError(f"{reduce_fn_name!r} takes a single dimension, found {dims}")
        reduced = reduce_dims(tensor, dims, reduce_fn_name)
        for position in sorted(d % tensor.ndim for d in dims) if keepdim else ():
            reduced = reduced.unsqueeze(position)
        return reduced


class _RowMajorMaskCreator(GroupedPruningMaskCreator):
    """Prunes runs of entries in row-major order."""

    _pattern: PerTensor

    def group_tensor(self, tensor: Tensor) -> Tensor:
        """Return ``[groups, 1]``, or ``[groups, 1, kernel positions]``."""
        folded, dims = self._pattern.fold(tensor.detach())
        return self.reduce_tensor(folded, dims, self._pattern.reduce)

    def _map_mask_to_tensor(
        self, grouped_mask: Tensor, original_tensor_shape: torch.Size, tensor_idx: int | None = None
    ) -> Tensor:
        like = grouped_mask.new_zeros(()).expand(original_tensor_shape)
        return self._pattern.expand(grouped_mask.squeeze(1), like)


class FourBlockMaskCreator(_RowMajorMaskCreator):
    """Prunes runs of four inputs, at each kernel position of a convolution.

    Where the number of inputs is no multiple of four, the last run of each row is shorter and its
    score is that of its own entries. Vectors are cut into runs of four too.

    :param grouping_fn_name: ``mean``, ``l2``, ``max`` or ``min`` of a run's scores, signs included
    """

    def __init__(self, grouping_fn_name: str = "mean") -> None:
        self._pattern = Runs(4, grouping_fn_name)


class BlockMaskCreator(_RowMajorMaskCreator):
    """Prunes ``out * in`` neighbouring entries, as SparseML 1.x cuts ``[out, in]`` blocks.

    Only ``[1, k]`` (k dividing the inputs) gives rectangles, see
    :class:`~sparseml.pytorch.functional.patterns.RowMajorBlock`.

    :param block_shape: outputs and inputs of a block, -1 for the whole dimension; further entries
        must be 1
    :param grouping_fn_name: ``mean``, ``l2``, ``max`` or ``min`` of a block's scores
    :raises ValueError: for fewer than two entries, or later entries other than 1
    """

    def __init__(self, block_shape: Sequence[int], grouping_fn_name: str = "mean") -> None:
        if len(block_shape) < 2:
            raise ValueError(f"block_shape is [out, in], found {list(block_shape)}")
        if any(size != 1 for size in block_shape[2:]):
            found = list(block_shape)
            raise ValueError(f"block_shape must be 1 beyond the first two entries, found {found}")
        self._pattern = RowMajorBlock(block_shape[0], block_shape[1], grouping_fn_name)


class PatternMaskCreator(UnstructuredPruningMaskCreator):
    """Prunes units of any pattern; sparsities are fractions of the weights."""

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern

    def __str__(self) -> str:
        return str(self._pattern)


class StructuredPruningMaskCreator(GroupedPruningMaskCreator):
    """Prunes whole filters (dimension 0) or channels (dimension 1).

    What goes where in a group says :class:`~sparseml.pytorch.functional.patterns.Together`.

    :param structure_type: ``filter`` or ``channel``
    :param grouping_fn_name: ``l2`` or ``mean`` of a slice's scores
    :param tensor_group_idxs: indices of the tensors that are masked alike, by the sum of their
        scores; together they must cover every tensor once. None: every tensor on its own
    :raises ValueError: for another structure type or grouping
    """

    _pattern: Slice

    def __init__(
        self,
        structure_type: str,
        grouping_fn_name: str = "l2",
        tensor_group_idxs: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if structure_type not in _DIMS:
            known = list(_DIMS)
            raise ValueError(f"structure_type must be one of {known}, found {structure_type!r}")
        _require_grouping(grouping_fn_name)
        self._pattern = Slice(_DIMS[structure_type], grouping_fn_name)
        self.set_tensor_group_idxs(tensor_group_idxs)

    structure_type = property(str, doc="``filter`` or ``channel``.")

    def group_tensor(self, tensor: Tensor) -> Tensor:
        """Return one score per slice."""
        return self._pattern.pools([tensor.detach()])[0].scores

    def set_tensor_group_idxs(self, tensor_group_idxs: Sequence[Sequence[int]] | None) -> None:
        """Say which tensors belong together; None puts each on its own."""
        groups = None if tensor_group_idxs is None else list(map(list, tensor_group_idxs))
        self.tensor_group_idxs = groups

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Return masks as the base class; with different targets, members of a group differ.

        :raises ValueError: for ``global_sparsity``: slices of different layers do not compare; and
            for grouped tensors whose sizes are not multiples of the smallest
        """
        if global_sparsity:
            raise ValueError(f"{self} masks are made per layer: global_sparsity must be False")
        create = partial(UnstructuredPruningMaskCreator.create_sparsity_masks, self)
        targets = [float(each) for each in one_target_each(target, len(tensors))]
        masks = {sparsity: create(tensors, sparsity) for sparsity in set(targets)}
        return [masks[sparsity][place] for place, sparsity in enumerate(targets)]

    def _map_mask_to_tensor(
        self, grouped_mask: Tensor, original_tensor_shape: torch.Size, tensor_idx: int | None = None
    ) -> Tensor:
        like = grouped_mask.new_zeros(()).expand(original_tensor_shape)
        keep = grouped_mask if like.shape[self._pattern.dim] > 1 else grouped_mask[:0]
        return Together(self._pattern).masks([keep], [like])[0]

    def _pattern_for(self, count: int) -> Together:
        groups = self.tensor_group_idxs
        if groups is None:
            return Together(self._pattern)
        if sorted(index for group in groups for index in group) != list(range(count)):
            needed = f"every index from 0 to {count - 1} exactly once"
            raise RuntimeError(f"tensor_group_idxs must hold {needed}, found {groups}")
        return Together(self._pattern, tuple(map(tuple, groups)))


def _require_grouping(name: str) -> None:
    if name not in _GROUPING_FNS:
        raise ValueError(f"grouping_fn_name must be one of {list(_GROUPING_FNS)}, found {name!r}")


def get_mask_creator_default(mask_type: MaskType) -> PruningMaskCreator:
    """Return the mask creator for a ``mask_type`` of SparseML 1.x, else raise a ValueError.

    ``"unstructured"``, ``"block4"``, ``"N:M"`` as ``"2:4"``, ``"tensorrt"`` (2:4), or a block as a
    list of two integers.
    """
    creator = creator_of(parse_pattern(mask_type))
    if isinstance(creator, (PatternMaskCreator, StructuredPruningMaskCreator)):
        known = "one of unstructured, block4, tensorrt, 'N:M' as '2:4' or [out, in] in SparseML 1.x"
        raise ValueError(f"mask_type must be {known}; found {mask_type!r}")
    return creator


def get_mask_creator(mask_type: MaskType) -> PruningMaskCreator:
    """Return the mask creator for any ``mask_type`` of :func:`parse_pattern`."""
    return creator_of(parse_pattern(mask_type))


def creator_of(pattern: Pattern, count: int = 0) -> PruningMaskCreator:
    """Return the mask creator that stands for a pattern.

    :param count: how many tensors there are, for patterns of which some tensors go together
    """
    if isinstance(pattern, Unstructured):
        return UnstructuredPruningMaskCreator()
    if isinstance(pattern, NM):
        return NMPruningMaskCreator(pattern.keep, pattern.group)
    if pattern == FOUR_BLOCK:
        return FourBlockMaskCreator()
    if isinstance(pattern, RowMajorBlock):
        return BlockMaskCreator([pattern.rows, pattern.cols], pattern.reduce)
    if isinstance(pattern, Together):
        listed = {place for group in pattern.groups for place in group}
        alone = [(place,) for place in range(count) if place not in listed]
        groups = [*pattern.groups, *alone] if pattern.groups else None
        return StructuredPruningMaskCreator(str(pattern), pattern.slices.reduce, groups)
    return PatternMaskCreator(pattern)
