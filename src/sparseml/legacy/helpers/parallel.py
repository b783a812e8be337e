"""Work on a stream of items in several threads."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

__all__ = ["ParallelWorker"]


@dataclass(eq=False)
class ParallelWorker:
    """Applies a function to items in threads; iterating gives the results in order.

    :param worker_func: the function
    :param num_workers: the number of threads
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
