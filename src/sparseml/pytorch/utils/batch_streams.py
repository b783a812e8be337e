"""Batches that gradients are sampled from, drawn apart from those of the training.

Data pipelines draw from the global random generators. Here each round through the data does so
within random numbers of its own: sampling never changes what training draws, nor the other way
around, and a resumed run samples what it would have sampled.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sparseml.pytorch.utils.distributed import process_rank
from sparseml.pytorch.utils.saving.rng import get_rng_state, set_rng_state

__all__ = [
    "GradientBatches",
    "OwnRandomNumbers",
    "SamplingData",
    "call_builder",
    "make_grad_sampler",
]

_LOGGER = logging.getLogger(__name__)
_END = object()

Batch = tuple[list[Tensor], dict[str, Any], Tensor]


class OwnRandomNumbers:
    """Random numbers apart from those that the global generators draw elsewhere."""

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Within the block the global generators draw these numbers, going on where they were."""
        before = get_rng_state()
        if self._state is not None:
            set_rng_state(self._state)
        try:
            yield
        finally:
            self._state = get_rng_state()
            set_rng_state(before)

    def begin(self, *entropy: int) -> None:
        """Begin the numbers of these seeds; to be called within :meth:`drawing`."""
        first, second, third = (int(n) for n in np.random.SeedSequence(entropy).generate_state(3))
        random.seed(first)
        np.random.seed(second)  # noqa: NPY002  data pipelines draw from the global generator
        torch.manual_seed(third)


class GradientBatches:
    """Batches for sampling gradients: ``([images], {}, labels)``.

    Each ``iter`` is another round through the data. What a round yields depends on its number and
    the seeds alone, and leaves the random generators as they are.

    :param loader: gives the loader; called when it is first needed
    :param seeds: that tell streams apart, such as the seed of the run and the rank of this process
    :param device: where the batches are put
    """

    def __init__(
        self,
        loader: Callable[[], Any],
        seeds: Sequence[int] = (0,),
        device: torch.device | str = "cpu",
    ) -> None:
        self._build = loader
        self._seeds = tuple(seeds)
        self._device = device
        self._rounds = 0

    def __iter__(self) -> Iterator[Batch]:
        number = self._rounds
        self._rounds += 1
        return self._round(number)

    def state_dict(self) -> dict[str, Any]:
        """Return how many rounds there were."""
        return {"rounds": self._rounds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the next round."""
        self._rounds = int(state["rounds"])

    def _round(self, number: int) -> Iterator[Batch]:
        loader, own = self._build(), OwnRandomNumbers()
        with own.drawing():
            own.begin(*self._seeds, number)
            _shuffle_anew(loader, number)
            batches = iter(loader)
        while True:
            with own.drawing():
                batch = next(batches, None)
            if batch is None:
                return
            images, labels = (part.to(self._device, non_blocking=True) for part in batch[:2])
            yield [images], {}, labels


def _shuffle_anew(loader: Any, number: int) -> None:
    # samplers for several processes do not draw from the global generators
    if hasattr(getattr(loader, "sampler", None), "set_epoch"):
        loader.sampler.set_epoch(number)


def make_grad_sampler(
    stream: Callable[[int], Iterable[Batch]], loss: Callable[[Any, Any], Tensor] = cross_entropy
) -> dict[str, Any]:
    """Return what ``manager.modify`` and ``manager.apply`` take as ``grad_sampler``.

    The labels are classes, and the loss is that of the task alone: no mixup, no smoothed labels, no
    distillation, whatever the training uses.

    :param stream: gives the batches for the n-th modifier that asks, from 0
    :param loss: called with logits ``[batch, classes]`` and labels ``[batch]``
    """
    numbers = itertools.count()

    def build(**kwargs: Any) -> Iterable[Batch]:
        return stream(next(numbers))

    return {"data_loader_builder": build, "loss_fn": loss, "loss_function": loss}


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
        self._own = OwnRandomNumbers()
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
        """Within the block the global generators draw the numbers of this stream."""
        with self._own.drawing():
            yield

    def next_batch(self) -> Any:
        """Return the next batch; to be called within :meth:`own_random_numbers`.

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
        """Return how far the stream has come."""
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
        self._batches, self._own = None, OwnRandomNumbers()
        if self._loader_state is not None and hasattr(self._loader, "load_state_dict"):
            self._loader.load_state_dict(self._loader_state)

    def _begin(self) -> Iterator[Any]:
        self._own.begin(self._seed % 2**64, process_rank(), self._rounds)
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
