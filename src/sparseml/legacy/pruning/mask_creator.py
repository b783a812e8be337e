"""Which mask creator a recipe's ``mask_type`` stands for; all of them, importable from here."""

from __future__ import annotations

import re

from sparseml.legacy.pruning.mask_creator_base import (
    Budget,
    ConstantMaskCreator,
    PruningMaskCreator,
    Target,
    UnstructuredPruningMaskCreator,
)
from sparseml.legacy.pruning.mask_creator_grouped import (
    BlockMaskCreator,
    FourBlockMaskCreator,
    GroupedPruningMaskCreator,
    PatternMaskCreator,
)
from sparseml.legacy.pruning.mask_creator_nm import NMPruningMaskCreator
from sparseml.legacy.pruning.mask_creator_structured import (
    StructuredPruningMaskCreator,
)
from sparseml.pytorch.functional.patterns import (
    NM,
    Pattern,
    PerTensor,
    RowMajorBlock,
    Runs,
    Together,
    Unstructured,
    parse_pattern,
)
from sparseml.utils.text import did_you_mean

__all__ = [
    "BlockMaskCreator",
    "Budget",
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

MaskType = str | list[int]
"""How recipes name a pattern: a word, ``"N:M"``, ``"RxC"`` or ``[out, in]``."""

_WORDS = ("unstructured", "block4", "tensorrt", "filter", "channel")


def get_mask_creator_default(mask_type: MaskType) -> PruningMaskCreator:
    """The mask creator for a ``mask_type`` of SparseML 1.x.

    ``"unstructured"``, ``"block4"``, ``"N:M"`` as ``"2:4"``, ``"tensorrt"`` (2:4), or a block as a
    list of two integers.

    :raises ValueError: for anything else
    """
    if isinstance(mask_type, list):
        if len(mask_type) == 2 and all(isinstance(size, int) for size in mask_type):
            return BlockMaskCreator(mask_type)
    elif mask_type == "unstructured":
        return UnstructuredPruningMaskCreator()
    elif mask_type == "block4":
        return FourBlockMaskCreator()
    elif mask_type == "tensorrt":
        return NMPruningMaskCreator(2, 4)
    elif isinstance(mask_type, str) and re.fullmatch(r"\s*\d+\s*:\s*\d+\s*", mask_type):
        kept, group = mask_type.split(":")
        return NMPruningMaskCreator(int(kept), int(group))
    raise ValueError(_unknown(mask_type))


def get_mask_creator(mask_type: MaskType) -> PruningMaskCreator:
    """The mask creator for any ``mask_type`` that gradual pruning modifiers accept.

    Those of :func:`get_mask_creator_default`, and ``"filter"``, ``"channel"`` and true rectangles
    of R outputs by C inputs as ``"RxC"``, by the mean of their scores.

    :raises ValueError: for anything else, with the nearest valid word
    """
    if isinstance(mask_type, str) and (mask_type in ("filter", "channel") or "x" in mask_type):
        pattern = parse_pattern(mask_type)
        if isinstance(pattern, PerTensor):
            return PatternMaskCreator(pattern)
    return get_mask_creator_default(mask_type)


def _unknown(mask_type: object) -> str:
    hint = did_you_mean(mask_type, _WORDS) if isinstance(mask_type, str) else ""
    return (
        f"mask_type must be one of {', '.join(_WORDS)}, 'N:M' as '2:4', 'RxC' as '4x1', or "
        f"[out, in]; found {mask_type!r}{hint}"
    )


def creator_of(pattern: Pattern) -> PruningMaskCreator:
    """Return the mask creator that stands for a pattern."""
    if isinstance(pattern, Unstructured):
        return UnstructuredPruningMaskCreator()
    if isinstance(pattern, NM):
        return NMPruningMaskCreator(pattern.keep, pattern.group)
    if isinstance(pattern, Runs):
        return FourBlockMaskCreator()
    if isinstance(pattern, RowMajorBlock):
        return BlockMaskCreator([pattern.rows, pattern.cols])
    if isinstance(pattern, Together):
        names = {0: "filter", 1: "channel"}
        groups = [list(group) for group in pattern.groups]
        return StructuredPruningMaskCreator(names[pattern.slices.dim], tensor_group_idxs=groups)
    return PatternMaskCreator(pattern)
