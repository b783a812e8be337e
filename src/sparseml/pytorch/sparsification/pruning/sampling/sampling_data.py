"""The data of a ``grad_sampler``: a stream that goes on where it stopped, and its first batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from sparseml.pytorch.sparsification.pruning.sampling.given import call_builder, parts_of
from sparseml.pytorch.sparsification.pruning.sampling.held_out import same_batch
from sparseml.pytorch.utils.distributed import process_rank
from sparseml.pytorch.utils.saving.rng import OwnRandomNumbers

_LOGGER = logging.getLogger(__name__)
_END = object()


class SamplingData:
    """An endless stream of batches that goes on where it stopped, also in a resumed run.

    When its batches are used up the loader is gone through again; an iterator is built anew. Each
    round draws random numbers of its own, by the seed of this process, its rank and the number of
    the round. So a resumed run repeats a round and skips what has been drawn of it.

    :param build: returns the loader: an iterable of batches, or a callable that returns one. If it
        has ``state_dict`` and ``load_state_dict``, its state at the beginning of a round is kept
    :param owner: for messages
    """

    def __init__(self, build: Callable[[], Any], owner: str) -> None:
        self._build, self._owner = build, owner
        self._seed = torch.initial_seed()
        self._loader: Any = build()
        self._loader_state: Any = None
        self._batches: Iterator[Any] | None = None
        self.rounds = self.drawn = self._to_skip = 0
        self._used = self._warned = False
        self.in_order = True  # whether the rounds seen have begun alike
        self._first: Any = None
        self.random_numbers = OwnRandomNumbers()

    def __getstate__(self) -> dict[str, Any]:
        # a copy opens the data again, and skips what has been drawn
        state = {**vars(self), "_first": None}
        if isinstance(self._loader, Iterator):
            state.update(_loader=None, _used=False)
        if self._batches is not None:
            state.update(_batches=None, rounds=self.rounds - 1, _to_skip=self.drawn, drawn=0)
        return state

    def next_batch(self) -> Any:
        """Return the next batch, within ``random_numbers.drawing()``; a RuntimeError for none."""
        batch: Any = next(self._begin() if self._batches is None else self._batches, _END)
        if batch is _END:
            if self.drawn and not self._warned:
                text = "%s: the data of the grad_sampler ended after %d batches and are repeated; "
                text += "give more data, or ask for fewer gradients (num_grads)"
                _LOGGER.warning(text, self._owner, self.drawn)
                self._warned = True
            batch = next(self._begin(), _END)
        if batch is _END:
            raise RuntimeError(f"{self._owner}: the data_loader_builder's loader has no batches")
        self.drawn += 1
        if self.drawn == 1:
            self.in_order = self._first is None or same_batch(self._first, batch)
            self._first = batch
        return batch

    def place(self) -> tuple[int, int, int]:
        """Return what tells the last batch from all others, of runs of other seeds also."""
        return self._seed % 2**64, self.rounds, self.drawn

    def progress_state(self) -> dict[str, Any]:
        """Return how far the stream has come."""
        opened = self._batches is not None
        return {
            "seed": self._seed,
            "rounds": self.rounds - opened,
            "drawn": self.drawn if opened else self._to_skip,
            "loader": self._loader_state,
        }

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`; the batches are skipped when the next one is drawn."""
        self._seed, self.rounds = state["seed"], state["rounds"]
        self._to_skip, self._loader_state = state["drawn"], state["loader"]
        self._batches, self.random_numbers = None, OwnRandomNumbers()
        if self._loader_state is not None and hasattr(self._loader, "load_state_dict"):
            self._loader.load_state_dict(self._loader_state)

    def _begin(self) -> Iterator[Any]:
        self.random_numbers.begin(self._seed % 2**64, process_rank(), self.rounds)
        if self._loader is None or (self._used and isinstance(self._loader, Iterator)):
            self._loader = self._build()
        if hasattr(self._loader, "load_state_dict") and hasattr(self._loader, "state_dict"):
            self._loader_state = self._loader.state_dict()
        source: Any = self._loader
        if not isinstance(source, Iterable) and callable(source):
            source = source()
        self._batches, self._used = iter(source), True
        self.rounds += 1
        self.drawn, self._to_skip = self._to_skip, 0
        for _ in range(self.drawn):
            next(self._batches, _END)
        return self._batches


def first_inputs(given: Any, keywords: Mapping[str, Any], owner: str) -> Any:
    """Return what the first batch of a ``grad_sampler`` gives the model, to look at the model with.

    :param keywords: for its ``data_loader_builder``
    :param owner: the modifier, for messages
    :return: a tuple of positional or a dict of keyword arguments; None for a batch with both, as a
        model is looked at with one of the two
    :raises RuntimeError: for a ``grad_sampler`` that lacks a key, has an unknown one, or no data
    """
    builder, _ = parts_of(given, owner)
    data = SamplingData(lambda: call_builder(builder, keywords), owner)
    with data.random_numbers.drawing():
        args, named, _ = data.next_batch()
    return dict(named) if named and not args else (tuple(args) if not named else None)
