"""Streams, buckets, values between points, keyword arguments, and decorators."""

from __future__ import annotations

import ast
import bisect
import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ParallelWorker",
    "bucket_iterable",
    "interpolate_list_linear",
    "interpolated_integral",
    "parse_kwarg_tuples",
    "wrapper_decorator",
]


def bucket_iterable(
    val: Iterable[Any],
    num_buckets: int = 3,
    edge_percent: float = 0.05,
    sort_highest: bool = True,
    sort_key: Callable[[Any], Any] | None = None,
) -> list[tuple[int, Any]]:
    """Sort values and return each with the number of the bucket that it falls into, from -1.

    :param val: the values
    :param num_buckets: how many buckets follow the edge; all hold the same number of values,
        rounded, but for the last, which takes what remains
    :param edge_percent: the share of values, from the front and rounded to whole ones, in the edge
        bucket, numbered -1; 0 for no edge
    :param sort_highest: put the greatest values first
    :param sort_key: what to sort by, by default the value itself
    """
    ordered = sorted(val, key=sort_key, reverse=sort_highest)
    edge = round(edge_percent * len(ordered))
    size = round((len(ordered) - edge) / num_buckets)
    last = num_buckets - 1
    rest = (min(i // size, last) if size else last for i in range(len(ordered) - edge))
    return list(zip([-1] * edge + list(rest), ordered, strict=True))


def _literal(value: Any) -> Any:
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def parse_kwarg_tuples(kwargs: Sequence[Any]) -> dict[str, Any]:
    """Return keyword arguments from a command line, values by name.

    :param kwargs: names and values by turns, ``("--alpha", "2.5", "--name", "x")``. Dashes before
        a name are removed; a value that is a Python literal becomes what it denotes; a repeated
        name has a list of its values
    :raises ValueError: if the last name has no value
    """
    if len(kwargs) % 2:
        raise ValueError(f"names and values must come in pairs, found {len(kwargs)}: {kwargs!r}")
    parsed: dict[str, list[Any]] = {}
    for name, value in zip(kwargs[::2], kwargs[1::2], strict=True):
        parsed.setdefault(str(name).lstrip("-"), []).append(_literal(value))
    return {name: values if len(values) > 1 else values[0] for name, values in parsed.items()}


def wrapper_decorator(wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """Turn ``wrapper(func, *args, **kwargs)`` into a decorator for ``func``."""

    def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def call(*args: Any, **kwargs: Any) -> Any:
            return wrapper(func, *args, **kwargs)

        return call

    return decorate


def interpolate_list_linear(
    measurements: Sequence[tuple[float, float]], x_val: float | Sequence[float]
) -> list[tuple[float, float]]:
    """Return points (x, y) on the lines through at least two, which go on beyond both ends.

    :param x_val: where to interpolate, one place or several; the result is ordered by them
    """
    if len(measurements) < 2:
        raise ValueError(f"at least two measurements are needed, found {len(measurements)}")
    points = sorted(measurements)
    xs = [x for x, _ in points]
    results = []
    for place in [x_val] if isinstance(x_val, (int, float)) else sorted(x_val):
        right = min(max(bisect.bisect_left(xs, place), 1), len(xs) - 1)
        (x0, y0), (x1, y1) = points[right - 1], points[right]
        slope = (y1 - y0) / (x1 - x0) if x1 != x0 else 0.0
        results.append((place, y0 + slope * (place - x0)))
    return results


def interpolated_integral(measurements: Sequence[tuple[float, float]]) -> float:
    """Return the area under the line through points (x, y); a single one gives its y, none 0."""
    if len(measurements) == 1:
        return measurements[0][1]
    pairs = itertools.pairwise(sorted(measurements))
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairs)


@dataclass(eq=False)
class ParallelWorker:
    """Applies a function to items in threads; iterating gives the results in order.

    :param indefinite: go through the items again and again
    :param max_source_size: items in work at the same time; -1 for twice the number of threads
    """

    worker_func: Callable[[Any], Any]
    num_workers: int
    indefinite: bool = False
    max_source_size: int = -1

    def __post_init__(self) -> None:
        self._items: list[Any] = []
        self._adding: list[threading.Thread] = []
        self._pool: ThreadPoolExecutor | None = None

    def add(self, vals: Iterable[Any]) -> None:
        """Add items."""
        self._items.extend(vals)

    def add_item(self, val: Any) -> None:
        """Add one item."""
        self._items.append(val)

    def add_async(self, vals: Iterable[Any]) -> None:
        """Add items from a thread of its own; iterating waits for them."""
        self.add_async_generator(iter(vals))

    def add_async_generator(self, gen: Iterator[Any]) -> None:
        """Add what a generator gives, as :meth:`add_async` does."""
        adding = threading.Thread(target=self.add, args=(gen,), daemon=True)
        adding.start()
        self._adding.append(adding)

    def start(self) -> None:
        """Start the threads."""
        self._pool = self._pool or ThreadPoolExecutor(self.num_workers)

    def shutdown(self) -> None:
        """Stop the threads; results not yet taken are lost."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def __iter__(self) -> Iterator[Any]:
        pool = self._pool
        if pool is None:
            raise RuntimeError("start() must be called first")
        while self._adding:
            self._adding.pop().join()
        items = itertools.cycle(self._items) if self.indefinite else iter(self._items)
        calls = (pool.submit(self.worker_func, item) for item in items)
        ahead = self.max_source_size if self.max_source_size > 0 else 2 * self.num_workers
        futures = deque(itertools.islice(calls, ahead))
        while futures:
            result = futures.popleft().result()
            futures.extend(itertools.islice(calls, 1))
            yield result
