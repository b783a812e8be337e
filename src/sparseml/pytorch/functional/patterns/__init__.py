"""What is pruned together: single weights, rectangles, filters, channels, N of M, unit groups.

A pattern cuts weights into *units*. It turns a score per weight into pools of units with a score
each, and a decision per unit back into masks. How many units go, and from which pool, is a question
of the budget (:mod:`~sparseml.pytorch.functional.budgets`). So any score works with any pattern and
any budget.

Weights have their output dimension first and their input dimension second: ``[out, in]`` for linear
layers, ``[out, in, *kernel]`` for convolutions.
"""

from sparseml.pytorch.functional.patterns.base import (
    REDUCTIONS,
    Pattern,
    PerTensor,
    Pool,
    Unstructured,
    reduce_dims,
)
from sparseml.pytorch.functional.patterns.blocks import (
    CHANNEL,
    FILTER,
    FOUR_BLOCK,
    NM,
    Block,
    RowMajorBlock,
    Runs,
    Slice,
)
from sparseml.pytorch.functional.patterns.parse import MaskType, parse_pattern
from sparseml.pytorch.functional.patterns.together import Together
from sparseml.pytorch.functional.patterns.units import Member, Units

__all__ = [
    "CHANNEL",
    "FILTER",
    "FOUR_BLOCK",
    "NM",
    "REDUCTIONS",
    "Block",
    "MaskType",
    "Member",
    "Pattern",
    "PerTensor",
    "Pool",
    "RowMajorBlock",
    "Runs",
    "Slice",
    "Together",
    "Units",
    "Unstructured",
    "parse_pattern",
    "reduce_dims",
]
