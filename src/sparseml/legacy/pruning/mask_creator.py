"""Which mask creator a recipe's ``mask_type`` stands for; all of them, importable from here."""

from __future__ import annotations

from sparseml.legacy.pruning.mask_creator_base import (
    ConstantMaskCreator,
    NMPruningMaskCreator,
    PruningMaskCreator,
    Target,
    UnstructuredPruningMaskCreator,
)
from sparseml.legacy.pruning.mask_creator_grouped import (
    BlockMaskCreator,
    FourBlockMaskCreator,
    GroupedPruningMaskCreator,
    PatternMaskCreator,
    StructuredPruningMaskCreator,
)
from sparseml.pytorch.functional.patterns import (
    FOUR_BLOCK,
    NM,
    MaskType,
    Pattern,
    RowMajorBlock,
    Together,
    Unstructured,
    parse_pattern,
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


def get_mask_creator_default(mask_type: MaskType) -> PruningMaskCreator:
    """Return the mask creator for a ``mask_type`` of SparseML 1.x.

    ``"unstructured"``, ``"block4"``, ``"N:M"`` as ``"2:4"``, ``"tensorrt"`` (2:4), or a block as a
    list of two integers.

    :raises ValueError: for anything else
    """
    creator = get_mask_creator(mask_type)
    if isinstance(creator, PatternMaskCreator):
        raise ValueError(
            "mask_type must be one of unstructured, block4, tensorrt, 'N:M' as '2:4' or [out, in] "
            f"in SparseML 1.x; found {mask_type!r}"
        )
    return creator


def get_mask_creator(mask_type: MaskType) -> PruningMaskCreator:
    """Return the mask creator for any ``mask_type`` of :func:`parse_pattern`.

    :raises ValueError: for anything else, with the nearest valid word
    """
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
