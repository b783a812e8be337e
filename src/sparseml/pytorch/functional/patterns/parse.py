"""The pattern that a recipe's ``mask_type`` stands for."""

from __future__ import annotations

import re

from sparseml.pytorch.functional.patterns.base import Pattern, Unstructured
from sparseml.pytorch.functional.patterns.blocks import (
    CHANNEL,
    FILTER,
    FOUR_BLOCK,
    NM,
    Block,
    RowMajorBlock,
)
from sparseml.pytorch.functional.patterns.units import Units
from sparseml.utils.text import did_you_mean

MaskType = str | list[int]
"""How recipes name a pattern: a word, ``"N:M"``, ``"RxC"`` or ``[out, in]``."""

_WORDS: dict[str, Pattern] = {
    "unstructured": Unstructured(),
    "block4": FOUR_BLOCK,
    "tensorrt": NM(2, 4),
    "filter": FILTER,
    "channel": CHANNEL,
    "heads": Units(()),  # of which groups is for those to find who know the model
}


def parse_pattern(mask_type: MaskType) -> Pattern:
    """Return the pattern that a ``mask_type`` stands for.

    ``unstructured``, ``filter``, ``channel``, ``block4`` (runs of four inputs), ``RxC`` as ``4x1``
    (R outputs by C inputs; ``channel`` for R or C means all), ``N:M`` as ``2:4`` (N kept of M),
    ``tensorrt`` (2:4), ``heads`` (still without groups), or SparseML's ``[out, in]`` (``out * in``
    entries in row-major order).

    :raises ValueError: for anything else, with the nearest valid word
    """
    if isinstance(mask_type, list) and len(mask_type) == 2:
        rows, cols = mask_type
        if isinstance(rows, int) and isinstance(cols, int):
            return RowMajorBlock(rows, cols)
    if isinstance(mask_type, str):
        if mask_type in _WORDS:
            return _WORDS[mask_type]
        if found := re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", mask_type):
            return NM(int(found[1]), int(found[2]))
        if found := re.fullmatch(r"(\d+)x(\d+|channel)|(channel)x(\d+)", mask_type):
            rows, cols = (-1 if w == "channel" else int(w) for w in mask_type.split("x"))
            return Block(rows, cols)
    hint = did_you_mean(mask_type, _WORDS) if isinstance(mask_type, str) else ""
    raise ValueError(
        f"mask_type must be one of {', '.join(_WORDS)}, 'N:M' as '2:4', 'RxC' as '4x1' or "
        f"'1xchannel', or [out, in]; found {mask_type!r}{hint}"
    )
