"""The kernels for the CPU, compiled by numba; importing this needs it."""

from __future__ import annotations

from sparseml.pytorch.functional.kernels.numba_eliminate import eliminate
from sparseml.pytorch.functional.kernels.numba_update import joint_update

__all__ = ["eliminate", "joint_update"]
