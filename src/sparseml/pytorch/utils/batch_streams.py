"""Gradients for the pruners that score weights by them: where their batches come from."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sparseml.pytorch.utils.rng import get_rng_state, set_rng_state

__all__ = ["GradientBatches", "make_grad_sampler"]

Batch = tuple[list[Tensor], dict[str, Any], Tensor]


class GradientBatches:
    """Batches for sampling gradients: ``([images], {}, labels)``.

    Each ``iter`` is another round through the data. What a round yields depends on its number and
    the seeds alone, and leaves the random generators as they are: sampling never changes what
    training draws, nor the other way around, and a resumed run samples what it would have sampled.

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
        """How many rounds there were."""
        return {"rounds": self._rounds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the next round."""
        self._rounds = int(state["rounds"])

    def _round(self, number: int) -> Iterator[Batch]:
        loader = self._build()
        seeds = np.random.SeedSequence((*self._seeds, number)).generate_state(3)
        own: dict[str, Any] = {"seeds": seeds}
        with _drawing_from(own):
            _shuffle_anew(loader, number)
            batches = iter(loader)
        while True:
            with _drawing_from(own):
                batch = next(batches, None)
            if batch is None:
                return
            images, labels = (part.to(self._device, non_blocking=True) for part in batch[:2])
            yield [images], {}, labels


def _shuffle_anew(loader: Any, number: int) -> None:
    # samplers for several processes do not draw from the global generators
    if hasattr(getattr(loader, "sampler", None), "set_epoch"):
        loader.sampler.set_epoch(number)


@contextmanager
def _drawing_from(own: dict[str, Any]) -> Iterator[None]:
    """Let all global generators draw from the states in ``own``, and keep them there."""
    before = get_rng_state()
    if "seeds" in own:
        python, numpy, torch_seed = (int(seed) for seed in own.pop("seeds"))
        random.seed(python)
        np.random.seed(numpy)  # noqa: NPY002  what augments draws from the global generator
        torch.manual_seed(torch_seed)
    else:
        set_rng_state(own["state"])
    try:
        yield
    finally:
        own["state"] = get_rng_state()
        set_rng_state(before)


def make_grad_sampler(
    stream: Callable[[int], Iterable[Batch]], loss: Callable[[Any, Any], Tensor] = cross_entropy
) -> dict[str, Any]:
    """What ``manager.modify`` and ``manager.apply`` take as ``grad_sampler``.

    The labels are classes, and the loss is that of the task alone: no mixup, no smoothed labels, no
    distillation, whatever the training uses.

    :param stream: gives the batches for the n-th modifier that asks, from 0
    :param loss: called with logits ``[batch, classes]`` and labels ``[batch]``
    """
    numbers = itertools.count()

    def build(**kwargs: Any) -> Iterable[Batch]:
        return stream(next(numbers))

    return {"data_loader_builder": build, "loss_fn": loss, "loss_function": loss}
