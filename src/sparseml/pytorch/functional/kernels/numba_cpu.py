"""The kernels for the CPU, compiled by numba: one block at a time inside the processor's cache."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparseml.pytorch.functional.kernels.numba_eliminate import eliminate
from sparseml.pytorch.functional.kernels.numba_loops import (
    CHUNK_BYTES,
    Array,
    as_arrays,
    compiled,
    subtract_rows,
)
from sparseml.pytorch.functional.kernels.rows import map_rows, rows_per_chunk

__all__ = ["eliminate", "joint_update"]


@compiled
def _joint_update_rows(
    weights: Array,
    inverse: Array,
    floors: Array,
    pruned: Array,
    updated: Array,
    losses: Array,
    start: int,
    stop: int,
) -> None:
    size = weights.shape[1]
    factor, place = np.empty((size, size)), np.empty(size, np.int64)
    solved, result = np.empty(size), np.empty(size)
    for r in range(start, stop):
        n = 0
        for i in range(size):
            result[i] = weights[r, i]
            if pruned[r, i]:
                place[n] = i
                solved[n] = weights[r, i]
                n += 1
        loss = 0.0
        for k in range(n):
            row, source = factor[k], inverse[r, place[k]]
            for i in range(k, n):
                row[i] = source[place[i]]
            subtract_rows(row[k:n], factor, k, k, k)
            scale = 1 / np.sqrt(max(row[k], floors[r, place[k]]))
            solved[k] *= scale
            loss += solved[k] * solved[k]
            row[k] = scale
            for i in range(k + 1, n):
                row[i] *= scale
                solved[i] -= solved[k] * row[i]
        for k in range(n - 1, -1, -1):
            for i in range(k + 1, n):
                solved[k] -= factor[k, i] * solved[i]
            solved[k] *= factor[k, k]
            source = inverse[r, place[k]]
            for i in range(size):
                result[i] -= solved[k] * source[i]
        for i in range(size):
            updated[r, i] = 0 if pruned[r, i] else result[i]
        losses[r] = loss / 2


def joint_update(
    weights: Tensor, inverse: Tensor, floor: Tensor, pruned: Tensor
) -> tuple[Tensor, Tensor]:
    """Remove ``pruned`` from each block, jointly; see :meth:`Kernels.joint_update`."""
    rows, size = weights.shape
    updated, losses = torch.empty_like(weights), torch.empty(rows, dtype=weights.dtype)
    arrays = as_arrays(weights, inverse, floor, pruned)
    results = (updated.numpy(), losses.numpy())
    map_rows(
        lambda start, stop: _joint_update_rows(*arrays, *results, start, stop),
        rows,
        rows_per_chunk(size * size * inverse.element_size(), CHUNK_BYTES),
        weights.device,
    )
    return updated, losses
