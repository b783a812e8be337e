"""Exact arithmetic on many small matrices at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_GROWTH = 10.0
_MOST_TRIES = 60


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """No autograd, no autocast, and float32 products with a full float32 mantissa.

    A Fisher matrix spans many orders of magnitude: with the ten bits of TF32 its inverse would be
    noise. The settings in force before are put back.
    """
    # torch before 2.9 has one setting for all backends
    both: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    backends = [one for one in both if hasattr(one, "fp32_precision")]
    before = [one.fp32_precision for one in backends]
    overall = None if backends else torch.get_float32_matmul_precision()
    try:
        for one in backends:
            one.fp32_precision = "ieee"
        if overall is not None:
            torch.set_float32_matmul_precision("highest")
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for one, precision in zip(backends, before, strict=True):
            one.fp32_precision = precision
        if overall is not None:
            torch.set_float32_matmul_precision(overall)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work on one thread: what is small gains nothing from more, and waits for them."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def map_rows(
    work: Callable[[int, int], None],
    rows: int,
    row_bytes: int,
    chunk_bytes: int,
    device: torch.device,
) -> None:
    """Call ``work(start, stop)`` for consecutive chunks that together cover ``range(rows)``.

    On the CPU the chunks run in parallel, one thread each, on as many threads as torch is set to
    use, and torch itself uses one thread in each: LAPACK and BLAS on matrices of a few hundred
    rows lose far more by splitting one matrix over threads than they win. With fewer chunks than
    threads they run one after another, each on all threads. ``work`` writes its results into
    memory of its own rows only; what it raises is raised here.

    :param row_bytes: what a row takes
    :param chunk_bytes: what the rows of a call take at most; a call has one row at least
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    chunk = max(1, min(chunk_bytes // max(1, row_bytes), -(-rows // threads)))
    chunks = [(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]
    with exact_arithmetic(device):
        if threads == 1 or len(chunks) < threads:
            for start, stop in chunks:
                work(start, stop)
            return
        with one_thread(), ThreadPoolExecutor(threads) as pool:
            # each thread has an autograd of its own; list() waits for all, and raises what they do
            list(pool.map(torch.no_grad()(work), *zip(*chunks, strict=True)))


def require_damp(damp: float) -> None:
    """Check a dampening.

    :raises ValueError: unless it is a finite number above 0
    """
    if not 0.0 < damp < float("inf"):
        raise ValueError(f"damp must be a finite number above 0, found {damp!r}")


def damped_cholesky(
    matrices: Tensor, damp: float | Tensor, rounding: float
) -> tuple[Tensor, Tensor]:
    r"""Factor :math:`A + \lambda I = L L^T`, with as little more dampening as it takes.

    In exact arithmetic every pivot of a positive semidefinite A plus :math:`\lambda` is at least
    :math:`\lambda`. A pivot below half of it therefore shows that rounding errors in A have eaten
    the dampening and that the inverse would be noise along that direction. Such matrices are tried
    again with ten times the dampening, at least ``rounding`` times their mean diagonal.

    :param matrices: ``[R, B, B]``, symmetric (only the lower triangles are read), finite; not
        changed
    :param damp: :math:`\lambda` to start from, a number or one per matrix ``[R]``
    :param rounding: machine epsilon of the precision in which the matrices were accumulated
    :return: lower factors ``[R, B, B]``, and the dampening used, ``[R]``
    :raises ValueError: when a matrix is not finite, or far from positive semidefinite
    """
    diagonal = matrices.diagonal(dim1=-2, dim2=-1)
    if not bool(diagonal.isfinite().all()):
        raise ValueError("matrices to factor hold values that are not finite")
    used = torch.empty(matrices.shape[:1], dtype=matrices.dtype, device=matrices.device)
    used[:] = damp
    factors, bad = _factor(matrices, used)
    least = rounding * diagonal.abs().mean(-1)
    tries = 0
    while bool(bad.any()):
        tries += 1
        if tries > _MOST_TRIES:
            raise ValueError("matrices to factor are not positive semidefinite")
        again = bad.nonzero()[:, 0]
        used[again] = torch.maximum(used[again] * _GROWTH, least[again])
        factors[again], bad[again] = _factor(matrices[again], used[again])
    return factors, used


def _factor(matrices: Tensor, damp: Tensor) -> tuple[Tensor, Tensor]:
    """Factors, and which of them cannot be trusted."""
    damped = matrices.clone()
    damped.diagonal(dim1=-2, dim2=-1).add_(damp.unsqueeze(-1))
    factors, info = torch.linalg.cholesky_ex(damped)
    pivots = factors.diagonal(dim1=-2, dim2=-1).amin(-1) ** 2
    # written so that NaN counts as bad
    return factors, (info != 0) | ~(pivots >= damp / 2)
