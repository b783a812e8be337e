"""Running the same computation over many independent blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

__all__ = ["exact_arithmetic", "map_rows", "one_thread", "rows_per_chunk"]


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """No autograd, no autocast, and float32 products with a full float32 mantissa.

    A Fisher matrix spans many orders of magnitude: with the ten bits of TF32 its inverse would be
    noise. The settings in force before are put back.
    """
    precision = _full_float32_products if _has_precision_per_backend() else _highest_precision
    with torch.no_grad(), torch.autocast(device.type, enabled=False), precision():
        yield


def _has_precision_per_backend() -> bool:
    return hasattr(torch.backends.cuda.matmul, "fp32_precision")


@contextmanager
def _full_float32_products() -> Iterator[None]:
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@contextmanager
def _highest_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work on one thread: what is small gains nothing from more, and waits for them."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def rows_per_chunk(bytes_per_row: int, chunk_bytes: int) -> int:
    """Return how many rows fit into ``chunk_bytes``, at least one."""
    return max(1, chunk_bytes // max(1, bytes_per_row))


def map_rows(work: Callable[[int, int], None], rows: int, chunk: int, device: torch.device) -> None:
    """Call ``work(start, stop)`` for consecutive chunks that together cover ``range(rows)``.

    On the CPU the chunks run in parallel, one thread each, on as many threads as torch is set to
    use, and torch itself uses one thread in each: LAPACK and BLAS on matrices of a few hundred
    rows lose far more by splitting one matrix over threads than they win. With fewer chunks than
    threads they run one after another, each on all threads. ``work`` writes its results into
    memory of its own rows only; what it raises is raised here.

    :param chunk: rows per call, at most
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    chunk = min(chunk, max(1, -(-rows // threads)))
    starts = range(0, rows, chunk)

    def run(start: int) -> None:
        with exact_arithmetic(device):
            work(start, min(start + chunk, rows))

    if threads == 1 or len(starts) < threads:
        for start in starts:
            run(start)
        return
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        # list() waits for all chunks and raises the first error
        list(pool.map(run, starts))
