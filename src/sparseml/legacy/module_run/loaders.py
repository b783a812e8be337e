"""Generators over data loaders that end early or never."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from typing import TypeVar

__all__ = ["early_stop_data_loader", "infinite_data_loader", "repeated_batches"]

_Batch = TypeVar("_Batch")


def early_stop_data_loader(
    data_loader: Iterable[_Batch], early_stop_steps: int
) -> Iterator[_Batch]:
    """Yield at most ``early_stop_steps`` batches of ``data_loader``; all of them when below 1."""
    yield from islice(data_loader, early_stop_steps if early_stop_steps > 0 else None)


def infinite_data_loader(
    data_loader: Iterable[_Batch], early_stop_steps: int = -1, cache: bool = False
) -> Iterator[_Batch]:
    """Yield the batches of ``data_loader`` again and again.

    :param early_stop_steps: begin anew after this many batches; after all when < 1
    :param cache: keep the batches of the first pass and repeat those
    :raises RuntimeError: if a pass over the loader yields nothing (an exhausted generator, say)
    """
    source: Iterable[_Batch] = data_loader
    if cache:
        source = list(early_stop_data_loader(data_loader, early_stop_steps))
    while True:
        empty = True
        for batch in early_stop_data_loader(source, early_stop_steps):
            empty = False
            yield batch
        if empty:
            raise RuntimeError(
                "the data loader yielded no batches; an iterator can be repeated only with cache"
            )


def repeated_batches(data_loader: Iterable[_Batch], steps: int) -> list[_Batch]:
    """Return the first ``steps`` batches, beginning anew where there are fewer.

    :param steps: how many; each batch once when < 1
    :raises ValueError: for no batches
    """
    batches = list(early_stop_data_loader(data_loader, steps))
    if not batches:
        raise ValueError("data yielded no batches")
    return list(islice(cycle(batches), steps if steps > 0 else len(batches)))
