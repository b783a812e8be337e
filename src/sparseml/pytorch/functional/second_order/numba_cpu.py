"""Second-order pruning of one block at a time by numba, inside the processor's second-level cache.

Eliminating weights in OBS order is a Cholesky factorisation of the inverse Fisher matrix H with a
pivot chosen by ``w_i^2 / H_ii`` among the remaining weights. It is done left-looking: each step
computes the one row of the downdated H that it needs, from H itself and the factor's rows so far,

    row = H[p, :] - sum_j U[j, p] U[j, :],   U[k, :] = row / sqrt(row[p]),

so H is only read, and nothing but the factor is kept. When a group of weights is gone the last one
takes its slots in the factor, which keeps the inner loops dense and short.

Slots are numbered ``a * stride + g``: the a-th entry of the g-th remaining group. Single weights
are groups of one.

Compiled code is kept between runs, by the file of the function that was called: after a change
here, clear the ``__pycache__`` beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from torch import Tensor

from sparseml.pytorch.functional.second_order.linalg import map_rows

__all__ = ["eliminate", "joint_update"]

_LANES = 16
Array = np.ndarray[Any, Any]
_CHUNK_BYTES = 1 << 23
_State = tuple[Array, Array, Array, Array]
"""Per slot: place in the block, weight, floor; and the blocks on the diagonal of the downdated
inverse, ``[group, group, stride]``."""
_Function = TypeVar("_Function", bound=Callable[..., Any])

# without the promises that there are no infinities and no NaN, which scores may be
_FASTMATH = {"contract", "reassoc", "nsz", "arcp"}


def _compiled(function: _Function) -> _Function:
    """Compile at the first call; without the interpreter's lock, so threads run side by side."""
    options = {"nogil": True, "fastmath": _FASTMATH, "error_model": "numpy"}
    try:
        return cast(_Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no folder to keep the compiled code in
        return cast(_Function, numba.njit(**options)(function))


@_compiled
def _copy_all(source: Array, target: Array) -> None:
    """``target[:] = source`` for contiguous arrays; numba copies matrices at half this speed."""
    values, into = source.reshape(source.size), target.reshape(target.size)
    for i in range(source.size):
        into[i] = values[i]


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
    while j + 2 <= rows:
        f0, f1 = factor[j], factor[j + 1]
        c0, c1 = f0[slot], f1[slot]
        f0, f1 = f0[first:], f1[first:]
        for i in range(out.shape[0]):
            out[i] -= c0 * f0[i] + c1 * f1[i]
        j += 2
    if j < rows:
        f0, c0 = factor[j, first:], factor[j, slot]
        for i in range(out.shape[0]):
            out[i] -= c0 * f0[i]


@_compiled
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


@_compiled
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


@_compiled
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


@_compiled
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


@_compiled
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
    stride, of = size // group, nm[0]
    factor, nearby = np.zeros((size, size), dtype), np.empty((size, size), dtype)
    root, solved = np.empty((group, group, stride), dtype), np.empty((group, stride), dtype)
    per_slot, diagonal = np.ones((2, size), dtype), np.ones((group, group, stride), dtype)
    place, gone = np.zeros(size, np.int64), np.empty(size, np.int64)
    state = (place, per_slot[0], per_slot[1], diagonal)
    score[0] = np.inf
    infinity = bits[0]
    for r in range(start, stop):
        _copy_all(inverse[r], nearby)  # one stream from memory instead of a row now and then
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
    weights: Tensor,
    inverse: Tensor,
    floor: Tensor,
    live: Tensor,
    order: Tensor,
    losses: Tensor,
    limit: float,
    group: int,
    nm: tuple[int, int] | None,
) -> None:
    """Eliminate groups of blocks; see :func:`.batched.eliminate`."""
    rows, size = weights.shape
    keep, of = nm or (0, 0)
    w, h, f, on = (one.contiguous().numpy() for one in (weights, inverse, floor, live))
    results = (order.numpy(), losses.numpy())

    def work(start: int, stop: int) -> None:
        score = np.empty(size // group, w.dtype)
        bits = score.view(np.int32 if score.itemsize == 4 else np.int64)
        rule = (group, (of, of - keep), limit)
        _eliminate_rows(w, h, f, on, *rule, *results, score, bits, start, stop)

    map_rows(work, rows, size * size * inverse.element_size(), _CHUNK_BYTES, weights.device)


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
    weights: Tensor,
    inverse: Tensor,
    floor: Tensor,
    pruned: Tensor,
    updated: Tensor,
    losses: Tensor,
) -> None:
    """Remove ``pruned`` from each block; see :func:`.batched.joint_update`."""
    rows, size = weights.shape
    w, h, f, gone = (one.contiguous().numpy() for one in (weights, inverse, floor, pruned))
    results = (updated.numpy(), losses.numpy())

    def work(start: int, stop: int) -> None:
        _joint_update_rows(w, h, f, gone, *results, start, stop)

    map_rows(work, rows, size * size * inverse.element_size(), _CHUNK_BYTES, weights.device)
