"""What the numba kernels share: how they are compiled, and the loop that takes their time.

Compiled code is kept between runs, by the file of the function that was called: after a change
here, clear the ``__pycache__`` beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from torch import Tensor

__all__ = ["CHUNK_BYTES", "Array", "as_arrays", "compiled", "copy_all", "subtract_rows"]

Array = np.ndarray[Any, Any]
CHUNK_BYTES = 1 << 23
_Function = TypeVar("_Function", bound=Callable[..., Any])

# without the promises that there are no infinities and no NaN, which scores may be
_FASTMATH = {"contract", "reassoc", "nsz", "arcp"}


def compiled(function: _Function) -> _Function:
    """Compile at the first call; without the interpreter's lock, so threads run side by side."""
    options = {"nogil": True, "fastmath": _FASTMATH, "error_model": "numpy"}
    try:
        return cast(_Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no folder to keep the compiled code in
        return cast(_Function, numba.njit(**options)(function))


def as_arrays(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Array, Array, Array, Array]:
    """The tensors' memory, copied only where it is not contiguous."""
    return tuple(t.contiguous().numpy() for t in (a, b, c, d))  # type: ignore[return-value]


@compiled
def copy_all(source: Array, target: Array) -> None:
    """``target[:] = source`` for contiguous arrays; numba copies matrices at half this speed."""
    values, into = source.reshape(source.size), target.reshape(target.size)
    for i in range(source.size):
        into[i] = values[i]


@compiled
def subtract_rows(out: Array, factor: Array, rows: int, slot: int, first: int) -> None:
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
