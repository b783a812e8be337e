"""Second-order pruning of one block at a time, inside the processor's second-level cache.

Eliminating weights in OBS order is a Cholesky factorisation of the inverse Fisher matrix H with a
pivot chosen by ``w_i^2 / H_ii`` among the remaining weights. It is done left-looking: each step
computes the one row of the downdated H that it needs, from H itself and the factor's rows so far,

    row = H[p, :] - sum_j U[j, p] U[j, :],   U[k, :] = row / sqrt(row[p]),

so H is only read, and nothing but the factor is kept. When a group of weights is gone the last one
takes its slots in the factor, which keeps the inner loops dense and short.

Slots are numbered ``a * stride + g``: the a-th entry of the g-th remaining group. Single weights
are groups of one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparseml.pytorch.functional.kernels.interface import EliminationRule
from sparseml.pytorch.functional.kernels.numba_loops import (
    CHUNK_BYTES,
    Array,
    as_arrays,
    compiled,
    copy_all,
    subtract_rows,
)
from sparseml.pytorch.functional.kernels.rows import map_rows, rows_per_chunk

__all__ = ["eliminate"]

_LANES = 16

_State = tuple[Array, Array, Array, Array]
"""Per slot: place in the block, weight, floor; and the blocks on the diagonal of the downdated
inverse, ``[group, group, stride]``."""


@compiled
def _load(weights: Array, inverse: Array, floors: Array, live: Array, state: _State) -> int:
    """Gather the groups that have a live entry; returns how many there are."""
    place, weight, floor, diagonal = state
    group, stride = diagonal.shape[0], diagonal.shape[2]
    n = 0
    for first in range(0, weights.shape[0], group):
        if not np.any(live[first : first + group]):
            continue
        for a in range(group):
            slot = a * stride + n
            place[slot] = first + a
            weight[slot] = weights[first + a]
            floor[slot] = floors[first + a]
            for b in range(a + 1):
                diagonal[a, b, n] = inverse[first + a, first + b]
        n += 1
    return n


@compiled
def _score(state: _State, n: int, root: Array, solved: Array, score: Array) -> None:
    """``score[g] = w_g^T (H_gg)^-1 w_g``."""
    _, weight, floor, diagonal = state
    group, stride = diagonal.shape[0], diagonal.shape[2]
    if group == 1:
        variance = diagonal[0, 0]
        for g in range(n):
            score[g] = weight[g] * weight[g] / variance[g]
        return
    score[:n] = 0
    for a in range(group):
        least, own, result = floor[a * stride :], root[a], solved[a]
        result[:n] = weight[a * stride : a * stride + n]
        for b in range(a + 1):
            own[b, :n] = diagonal[a, b, :n]
            for c in range(b):
                for g in range(n):
                    own[b, g] -= own[c, g] * root[b, c, g]
            if b < a:
                for g in range(n):
                    own[b, g] /= root[b, b, g]
                    result[g] -= own[b, g] * solved[b, g]
        for g in range(n):
            own[a, g] = np.sqrt(max(own[a, g], least[g]))
            result[g] /= own[a, g]
            score[g] += result[g] * result[g]


@compiled
def _cheapest(bits: Array, place: Array, n: int, infinity: int) -> int:
    """The group with the smallest score, of equals the first in the block; -1 for none.

    ``bits`` are the scores read as integers, which orders non-negative floats and lets the loops
    be vectorised; NaN ranks above infinity.
    """
    least = bits[0]
    for g in range(n):
        least = min(least, bits[g])
    if n == 0 or least >= infinity:
        return -1
    ties = 0
    for g in range(n):
        ties += 1 if bits[g] == least else 0
    best = 0
    while bits[best] != least:
        best += 1
    if ties > 1:
        for g in range(best + 1, n):
            if bits[g] == least and place[g] < place[best]:
                best = g
    return best


@compiled
def _eliminate_slot(
    slot: int, row: int, inverse: Array, factor: Array, n: int, state: _State
) -> float:
    """Append one row to the factor and condition the rest on it; returns ``w^2 / H_pp``."""
    place, weight, floor, diagonal = state
    group, stride = diagonal.shape[0], diagonal.shape[2]
    new = factor[row]
    source = inverse[place[slot]]
    n = min(-(-n // _LANES) * _LANES, stride)  # what is computed beyond n is never read
    for a in range(group):
        o = a * stride
        part, places = new[o : o + n], place[o : o + n]
        for i in range(n):
            part[i] = source[places[i]]
        subtract_rows(part, factor, row, slot, o)
    # in the arrays' own precision: a double here would slow down all loops below
    scale = weight.dtype.type(1 / np.sqrt(max(new[slot], floor[slot])))
    step = weight[slot] * scale
    for a in range(group):
        o = a * stride
        part, rest, least = new[o : o + n], weight[o : o + n], floor[o : o + n]
        for i in range(n):
            part[i] *= scale
        for b in range(a):
            other, block = new[b * stride :], diagonal[a, b]
            for i in range(n):
                block[i] -= part[i] * other[i]
        variance = diagonal[a, a]
        for i in range(n):
            rest[i] -= step * part[i]
            left = variance[i] - part[i] * part[i]
            variance[i] = left if left > least[i] else least[i]
    return step * step


@compiled
def _remove(g: int, last: int, rows: int, factor: Array, state: _State) -> None:
    """Move the last group into the slots of the one that is gone."""
    place, weight, floor, diagonal = state
    group, stride = diagonal.shape[0], diagonal.shape[2]
    for a in range(group):
        i, j = a * stride + g, a * stride + last
        place[i], weight[i], floor[i] = place[j], weight[j], floor[j]
        for b in range(a + 1):
            diagonal[a, b, g] = diagonal[a, b, last]
        for k in range(rows):
            factor[k, i] = factor[k, j]


@compiled
def _remove_full_families(
    gone: Array, nm: tuple[int, int], n: int, rows: int, factor: Array, state: _State
) -> int:
    """N:M: drop what is left of families that have lost their quota; returns how many are left."""
    of, quota = nm
    for g in range(n - 1, -1, -1):
        if gone[state[0][g] // of] >= quota:
            n -= 1
            _remove(g, n, rows, factor, state)
    return n


@compiled
def _eliminate_rows(
    weights: Array,
    inverse: Array,
    floors: Array,
    live: Array,
    group: int,
    nm: tuple[int, int],
    limit: float,
    order: Array,
    losses: Array,
    score: Array,
    bits: Array,
    start: int,
    stop: int,
) -> None:
    size, dtype = weights.shape[1], weights.dtype
    stride, of = size // group, nm[0]
    factor, nearby = np.zeros((size, size), dtype), np.empty((size, size), dtype)
    root, solved = np.empty((group, group, stride), dtype), np.empty((group, stride), dtype)
    per_slot, diagonal = np.ones((2, size), dtype), np.ones((group, group, stride), dtype)
    place, gone = np.zeros(size, np.int64), np.empty(size, np.int64)
    state = (place, per_slot[0], per_slot[1], diagonal)
    score[0] = np.inf
    infinity = bits[0]
    for r in range(start, stop):
        copy_all(inverse[r], nearby)  # one stream from memory instead of a row now and then
        n = _load(weights[r], nearby, floors[r], live[r], state)
        if of > 0:
            gone[:] = 0
            for entry in range(size):
                gone[entry // of] += 0 if live[r, entry] else 1
            n = _remove_full_families(gone, nm, n, 0, factor, state)
        total = 0.0
        for step in range(order.shape[1]):
            _score(state, n, root, solved, score)
            g = _cheapest(bits, place, n, infinity)
            if g < 0:
                break
            for a in range(group):
                row = step * group + a
                total += _eliminate_slot(a * stride + g, row, nearby, factor, n, state)
            entry, rows = place[g], (step + 1) * group
            order[r, step] = entry // group
            losses[r, step] = total / 2
            if total / 2 > limit:
                break
            n -= 1
            _remove(g, n, rows, factor, state)
            if of > 0:
                gone[entry // of] += 1
                if gone[entry // of] == nm[1]:
                    n = _remove_full_families(gone, nm, n, rows, factor, state)


def eliminate(
    weights: Tensor, inverse: Tensor, floor: Tensor, live: Tensor, rule: EliminationRule
) -> tuple[Tensor, Tensor]:
    """Eliminate entries of each block in OBS order; see :meth:`Kernels.eliminate`."""
    rows, size = weights.shape
    order = torch.full((rows, rule.depth), -1, dtype=torch.int16)
    losses = torch.full((rows, rule.depth), torch.inf, dtype=weights.dtype)
    keep, of = rule.nm or (0, 0)
    arrays = as_arrays(weights, inverse, floor, live)
    results = (order.numpy(), losses.numpy())

    def work(start: int, stop: int) -> None:
        score = np.empty(size // rule.group, arrays[0].dtype)
        bits = score.view(np.int32 if score.itemsize == 4 else np.int64)
        nm = (of, of - keep)
        _eliminate_rows(*arrays, rule.group, nm, rule.limit, *results, score, bits, start, stop)

    chunk = rows_per_chunk(size * size * inverse.element_size(), CHUNK_BYTES)
    map_rows(work, rows, chunk, weights.device)
    return order, losses
