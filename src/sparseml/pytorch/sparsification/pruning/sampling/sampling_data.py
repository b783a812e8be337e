"""The batches that gradients are sampled from."""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sparseml.pytorch.sparsification.pruning.sampling.ranks import process_rank
from sparseml.pytorch.utils.saving.rng import get_rng_state, set_rng_state

__all__ = ["SamplingData", "call_builder"]

_LOGGER = logging.getLogger(__name__)
_END = object()


def call_builder(builder: Callable[..., Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a ``data_loader_builder`` in the way that its signature asks for.

    SparseML 1.x hands the OBS and M-FAC builders their ``grad_sampler_kwargs`` as one dict, the
    CAP scripts hand them over as keywords. A builder with ``**kwargs``, or with parameters of just
    these names, gets keywords; one that needs a single argument (of another name) gets the dict;
    one that takes none is called without.
    """
    try:
        parameters = list(inspect.signature(builder).parameters.values())
    except (TypeError, ValueError):  # some callables written in C have no signature
        return builder(**kwargs)
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    needed = {p.name for p in parameters if p.default is p.empty and p.kind in _SINGLE_KINDS}
    by_keywords = any(p.kind is p.VAR_KEYWORD for p in parameters) or set(kwargs) <= names
    if by_keywords and needed <= set(kwargs):
        return builder(**kwargs)
    return builder(dict(kwargs))


_SINGLE_KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


class SamplingData:
    """An endless stream of batches that goes on where it stopped, also in a resumed run.

    The loader is gone through once more when its batches are used up; one that is an iterator
    itself is built anew. Each round through the loader draws random numbers of its own, from the
    seed of this process, its rank and the number of the round, while those of the training stay as
    they are. So a resumed run repeats a round and skips what has been drawn of it.

    :param build: returns the loader: an iterable of batches, or a callable that returns one. If it
        has ``state_dict`` and ``load_state_dict``, its state at the beginning of a round is kept
    :param owner: for messages
    """

    def __init__(self, build: Callable[[], Any], owner: str) -> None:
        self._build = build
        self._owner = owner
        self._seed = torch.initial_seed()
        self._loader: Any = build()
        self._used = False
        self._batches: Iterator[Any] | None = None
        self._loader_state: Any = None
        self._rounds = 0
        self._drawn = 0
        self._to_skip = 0
        self._random_state: dict[str, Any] | None = None
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        # a copy opens the data again, and skips what has been drawn
        state = dict(vars(self))
        if isinstance(self._loader, Iterator):
            state.update(_loader=None, _used=False)
        if self._batches is not None:
            state.update(_batches=None, _rounds=self._rounds - 1, _to_skip=self._drawn, _drawn=0)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    @contextmanager
    def own_random_numbers(self) -> Iterator[None]:
        """Within the block the global generators are those of this stream."""
        before = get_rng_state()
        if self._random_state is not None:
            set_rng_state(self._random_state)
        try:
            yield
        finally:
            self._random_state = get_rng_state()
            set_rng_state(before)

    def next_batch(self) -> Any:
        """The next batch; to be called within :meth:`own_random_numbers`.

        :raises RuntimeError: if the loader yields none
        """
        if self._batches is None:
            self._begin()
        assert self._batches is not None
        batch = next(self._batches, _END)
        if batch is _END:
            self._warn_of_end()
            batch = next(self._begin(), _END)
        if batch is _END:
            raise RuntimeError(f"{self._owner}: the data_loader_builder's loader has no batches")
        self._drawn += 1
        return batch

    def progress_state(self) -> dict[str, Any]:
        """How far the stream has come."""
        opened = self._batches is not None
        return {
            "seed": self._seed,
            "rounds": self._rounds - opened,
            "drawn": self._drawn if opened else self._to_skip,
            "loader": self._loader_state,
        }

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`; the batches are skipped when the next one is drawn."""
        self._seed, self._rounds = state["seed"], state["rounds"]
        self._to_skip, self._loader_state = state["drawn"], state["loader"]
        self._batches, self._random_state = None, None
        if self._loader_state is not None and hasattr(self._loader, "load_state_dict"):
            self._loader.load_state_dict(self._loader_state)

    def _begin(self) -> Iterator[Any]:
        _seed_all((self._seed % 2**64, process_rank(), self._rounds))
        if self._loader is None or (self._used and isinstance(self._loader, Iterator)):
            self._loader = self._build()
        if hasattr(self._loader, "load_state_dict") and hasattr(self._loader, "state_dict"):
            self._loader_state = self._loader.state_dict()
        source: Any = self._loader
        if not isinstance(source, Iterable) and callable(source):
            source = source()
        batches = iter(source)
        self._batches, self._used = batches, True
        self._rounds += 1
        self._drawn = 0
        skipped, self._to_skip = self._to_skip, 0
        for _ in range(skipped):
            next(batches, _END)
            self._drawn += 1
        return batches

    def _warn_of_end(self) -> None:
        if not self._warned:
            _LOGGER.warning(
                "%s: the data of the grad_sampler ended after %d batches and are repeated; give "
                "more data, or ask for fewer gradients (num_grads)",
                self._owner,
                self._drawn,
            )
            self._warned = True


def _seed_all(entropy: tuple[int, ...]) -> None:
    first, second, third = (int(n) for n in np.random.SeedSequence(entropy).generate_state(3))
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002  users' data pipelines draw from the global generator
    torch.manual_seed(third)
