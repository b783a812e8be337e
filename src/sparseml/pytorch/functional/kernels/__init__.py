"""The inner loops of second-order pruning, in forms that suit different devices.

All forms compute the same numbers up to rounding. :func:`kernels_for` chooses one at run time.
"""

from __future__ import annotations

from sparseml.pytorch.functional.kernels.dispatch import BACKENDS, kernels_for
from sparseml.pytorch.functional.kernels.interface import EliminationRule, Kernels
from sparseml.pytorch.functional.kernels.rows import exact_arithmetic, map_rows

__all__ = ["BACKENDS", "EliminationRule", "Kernels", "exact_arithmetic", "kernels_for", "map_rows"]
