"""Second-order pruning of one block at a time, inside the processor's second-level cache.

Eliminating weights in OBS order is a Cholesky factorisation of the inverse Fisher matrix H with a
pivot chosen by ``w_i^2 / H_ii`` among the remaining weights. It is done left-looking: each step
computes the one row of the downdated H that it needs, from H itself and the factor's rows so far,

    row = H[p, :] - sum_j U[j, p] U[j, :],   U[k, :] = row / sqrt(row[p]),

so H is only read, and nothing but the factor is kept. Slots whose weight is gone are squeezed out
of the factor now and then, which keeps the inner loops dense and short.

Slots are numbered ``a * stride + g``: the a-th entry of the g-th remaining group. Single weights
are groups of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np
import torch
from torch import Tensor

from sparseml.pytorch.functional.kernels.rows import map_rows, rows_per_chunk

if TYPE_CHECKING:
    from sparseml.pytorch.functional.kernels.dispatch import EliminationRule

__all__ = ["eliminate", "joint_update"]

Array = np.ndarray[Any, Any]
_State = tuple[Array, Array, Array, Array, Array]
"""Per slot: place in the block, weight, floor; per group: 0 or inf for open or closed; and the
blocks on the diagonal of the downdated inverse, ``[group, group, stride]``."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Infinities mark closed groups, so the compiler must not assume that there are none.
_FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
_CHUNK_BYTES = 1 << 21


def _compiled(function: _Function) -> _Function:
    options = {"nogil": True, "fastmath": _FASTMATH, "error_model": "numpy"}
    try:
        return cast(_Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no folder to keep the compiled code in
        return cast(_Function, numba.njit(**options)(function))


@_compiled
def _subtract_rows(out: Array, factor: Array, rows: int, slot: int, first: int) -> None:
    """``out -= factor[:rows, slot] @ factor[:rows, first : first + len(out)]``."""
    # Rows are sliced before the loops, which then run from zero over contiguous memory: else the
    # compiler would not vectorise them.
    j = 0
    while j + 8 <= rows:
        f0, f1, f2, f3 = factor[j], factor[j + 1], factor[j + 2], factor[j + 3]
        f4, f5, f6, f7 = factor[j + 4], factor[j + 5], factor[j + 6], factor[j + 7]
        c0, c1, c2, c3 = f0[slot], f1[slot], f2[slot], f3[slot]
        c4, c5, c6, c7 = f4[slot], f5[slot], f6[slot], f7[slot]
        f0, f1, f2, f3 = f0[first:], f1[first:], f2[first:], f3[first:]
        f4, f5, f6, f7 = f4[first:], f5[first:], f6[first:], f7[first:]
        for i in range(out.shape[0]):
            out[i] -= (c0 * f0[i] + c1 * f1[i] + c2 * f2[i] + c3 * f3[i]) + (
                c4 * f4[i] + c5 * f5[i] + c6 * f6[i] + c7 * f7[i]
            )
        j += 8
    while j < rows:
        f, c = factor[j, first:], factor[j, slot]
        for i in range(out.shape[0]):
            out[i] -= c * f[i]
        j += 1


@_compiled
def _load(weights: Array, inverse: Array, floors: Array, live: Array, state: _State) -> int:
    """Gather the groups that have a live entry; returns how many there are."""
    place, weight, floor, closed, diagonal = state
    group, stride = diagonal.shape[0], diagonal.shape[2]
    n = 0
    for first in range(0, weights.shape[0], group):
        if not np.any(live[first : first + group]):
            continue
        closed[n] = 0
        for a in range(group):
            slot = a * stride + n
            place[slot] = first + a
            weight[slot] = weights[first + a]
            floor[slot] = floors[first + a]
            for b in range(a + 1):
                diagonal[a, b, n] = inverse[first + a, first + b]
        n += 1
    return n


@_compiled
def _score(state: _State, n: int, root: Array, solved: Array, score: Array) -> None:
    """``score[g] = w_g^T (H_gg)^-1 w_g``, infinite for closed groups."""
    _, weight, floor, closed, diagonal = state
    group, stride = diagonal.shape[0], diagonal.shape[2]
    if group == 1:
        variance = diagonal[0, 0]
        for g in range(n):
            score[g] = weight[g] * weight[g] / variance[g] + closed[g]
        return
    score[:n] = closed[:n]
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


@_compiled
def _first_minimum(bits: Array, n: int, infinity: int) -> int:
    """Index of the smallest score, the first of equals; -1 when none is finite.

    ``bits`` are the scores read as integers, which orders non-negative floats and lets the loop
    be vectorised; NaN ranks above infinity.
    """
    least = bits[0]
    for g in range(n):
        least = min(least, bits[g])
    if n == 0 or least >= infinity:
        return -1
    g = 0
    while bits[g] != least:
        g += 1
    return g


@_compiled
def _eliminate_slot(
    slot: int, row: int, inverse: Array, factor: Array, n: int, state: _State
) -> float:
    """Append one row to the factor and condition the rest on it; returns ``w^2 / H_pp``."""
    place, weight, floor, _, diagonal = state
    group, stride = diagonal.shape[0], diagonal.shape[2]
    new = factor[row]
    source = inverse[place[slot]]
    for a in range(group):
        o = a * stride
        part, places = new[o : o + n], place[o : o + n]
        for i in range(n):
            part[i] = source[places[i]]
        _subtract_rows(part, factor, row, slot, o)
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


@_compiled
def _squeeze(n: int, rows: int, keep: Array, state: _State, factor: Array) -> int:
    """Drop the closed groups, keeping the order of the others; returns their number."""
    place, weight, floor, closed, diagonal = state
    group, stride = diagonal.shape[0], diagonal.shape[2]
    m = 0
    for g in range(n):
        if closed[g] == 0:
            keep[m] = g
            m += 1
    for i in range(m):
        g = keep[i]
        closed[i] = 0
        for a in range(group):
            o = a * stride
            place[o + i] = place[o + g]
            weight[o + i] = weight[o + g]
            floor[o + i] = floor[o + g]
            for b in range(a + 1):
                diagonal[a, b, i] = diagonal[a, b, g]
    for j in range(rows):
        row = factor[j]
        for a in range(group):
            part = row[a * stride : a * stride + n]
            for i in range(m):
                part[i] = part[keep[i]]
    return m


@_compiled
def _close_families(gone: Array, of: int, quota: int, n: int, state: _State) -> None:
    """N:M: close what is left of every family of ``of`` entries that has lost its quota."""
    place, _, _, closed, _ = state
    for g in range(n):
        if gone[place[g] // of] >= quota:
            closed[g] = np.inf


@_compiled
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
    stride = size // group
    of, quota = nm
    factor, root = np.empty((size, size), dtype), np.empty((group, group, stride), dtype)
    solved, per_slot = np.empty((group, stride), dtype), np.empty((3, size), dtype)
    keep, gone = np.empty(stride, np.int64), np.empty(size, np.int64)
    diagonal, nearby = np.empty((group, group, stride), dtype), np.empty((size, size), dtype)
    state = (np.empty(size, np.int64), per_slot[0], per_slot[1], per_slot[2], diagonal)
    score[0] = np.inf
    infinity = bits[0]
    lag = max(stride // 6, 1)
    for r in range(start, stop):
        nearby[:] = inverse[r]  # one stream from memory instead of a row now and then
        n = _load(weights[r], nearby, floors[r], live[r], state)
        if of > 0:
            gone[:] = 0
            for entry in range(size):
                gone[entry // of] += 0 if live[r, entry] else 1
            _close_families(gone, of, quota, n, state)
        total, dead = 0.0, 0
        for step in range(order.shape[1]):
            _score(state, n, root, solved, score)
            g = _first_minimum(bits, n, infinity)
            if g < 0:
                break
            for a in range(group):
                row = step * group + a
                total += _eliminate_slot(a * stride + g, row, nearby, factor, n, state)
            entry = state[0][g]
            state[3][g] = np.inf
            order[r, step] = entry // group
            losses[r, step] = total / 2
            if total / 2 > limit:
                break
            if of > 0:
                gone[entry // of] += 1
                _close_families(gone, of, quota, n, state)
            dead += 1
            if dead == lag:
                n = _squeeze(n, (step + 1) * group, keep, state, factor)
                dead = 0


def _arrays(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Array, Array, Array, Array]:
    """The tensors' memory, copied only where it is not contiguous."""
    return tuple(t.contiguous().numpy() for t in (a, b, c, d))  # type: ignore[return-value]


def eliminate(
    weights: Tensor, inverse: Tensor, floor: Tensor, live: Tensor, rule: EliminationRule
) -> tuple[Tensor, Tensor]:
    """See :class:`~sparseml.pytorch.functional.kernels.dispatch.Kernels`."""
    rows, size = weights.shape
    order = torch.full((rows, rule.depth), -1, dtype=torch.int16)
    losses = torch.full((rows, rule.depth), torch.inf, dtype=weights.dtype)
    keep, of = rule.nm or (0, 0)
    arrays = _arrays(weights, inverse, floor, live)
    results = (order.numpy(), losses.numpy())

    def work(start: int, stop: int) -> None:
        score = np.empty(size // rule.group, arrays[0].dtype)
        bits = score.view(np.int32 if score.itemsize == 4 else np.int64)
        nm = (of, of - keep)
        _eliminate_rows(*arrays, rule.group, nm, rule.limit, *results, score, bits, start, stop)

    chunk = rows_per_chunk(size * size * inverse.element_size(), _CHUNK_BYTES)
    map_rows(work, rows, chunk, weights.device)
    return order, losses


@_compiled
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
            _subtract_rows(row[k:n], factor, k, k, k)
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
    """See :class:`~sparseml.pytorch.functional.kernels.dispatch.Kernels`."""
    rows, size = weights.shape
    updated, losses = torch.empty_like(weights), torch.empty(rows, dtype=weights.dtype)
    arrays = _arrays(weights, inverse, floor, pruned)
    results = (updated.numpy(), losses.numpy())
    map_rows(
        lambda start, stop: _joint_update_rows(*arrays, *results, start, stop),
        rows,
        rows_per_chunk(size * size * inverse.element_size(), _CHUNK_BYTES),
        weights.device,
    )
    return updated, losses
