"""How much is pruned in each tensor. Which units go is left to their scores.

A budget takes pools of units (:class:`~sparseml.pytorch.functional.patterns.Pool`) and a target
sparsity and decides per unit whether it is kept. Sparsities count *weights*: where all units have
one size, exactly the nearest number of units goes; where sizes differ, the nearest number of
weights that whole units allow. Among equal scores earlier tensors and earlier units are kept.
"""

from sparseml.pytorch.functional.budgets.base import (
    Budget,
    Target,
    after_removal,
    all_after_removal,
    common_target,
    pool_target,
    sparsity_bounds,
)
from sparseml.pytorch.functional.budgets.ranking import global_counts, require_possible
from sparseml.pytorch.functional.budgets.reserving import Reserving
from sparseml.pytorch.functional.budgets.rules import Counts, Densities, Global, Uniform, UnitShares

__all__ = [
    "Budget",
    "Counts",
    "Densities",
    "Global",
    "Reserving",
    "Target",
    "Uniform",
    "UnitShares",
    "after_removal",
    "all_after_removal",
    "common_target",
    "global_counts",
    "pool_target",
    "require_possible",
    "sparsity_bounds",
]
