"""Gradients for the pruners that score weights by them: where their batches come from."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sparseml.pytorch.utils.rng import get_rng_state, set_rng_state

__all__ = ["GradientBatches", "make_grad_sampler"]

_LAPS = 100_003  # of the data in a round, at most
Batch = tuple[list[Tensor], dict[str, Any], Tensor]


class GradientBatches:
    """Batches without end for sampling gradients: ``([images], {}, labels)``.

    Each ``iter`` begins a round of its own. What a round yields depends on its number, ``seed`` and
    ``rank`` alone, and leaves the random generators as they are: sampling never changes what
    training draws, nor the other way around, and a resumed run samples what it would have sampled.

    :param loader: gives the loader, built once when it is first needed
    :param rank: of this process, where each samples by itself
    :param device: where the batches are put
    """

    def __init__(
        self,
        loader: Callable[[], Any],
        seed: int = 0,
        rank: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._build = loader
        self._loader: Any = None
        self._seed = (seed, rank)
        self._device = device
        self._rounds = 0

    def __iter__(self) -> Iterator[Batch]:
        number = self._rounds
        self._rounds += 1
        return self._round(number)

    def state_dict(self) -> dict[str, Any]:
        """How many rounds there were."""
        return {"rounds": self._rounds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the next round."""
        self._rounds = int(state["rounds"])

    def _round(self, number: int) -> Iterator[Batch]:
        if self._loader is None:
            self._loader = self._build()
        seeds = np.random.SeedSequence((*self._seed, number)).generate_state(3)
        own: dict[str, Any] = {"seeds": seeds}
        for lap in itertools.count():
            with _drawing_from(own):
                _shuffle_anew(self._loader, number * _LAPS + lap)
                batches = iter(self._loader)
            while True:
                with _drawing_from(own):
                    batch = next(batches, None)
                if batch is None:
                    break
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
    batches: GradientBatches, loss: Callable[[Any, Any], Tensor] = cross_entropy
) -> dict[str, Any]:
    """What ``manager.modify`` and ``manager.apply`` take as ``grad_sampler``.

    The labels are classes, and the loss is that of the task alone: no mixup, no smoothed labels, no
    distillation, whatever the training uses.

    :param loss: called with logits ``[batch, classes]`` and labels ``[batch]``
    """

    def build(*args: Any, **kwargs: Any) -> GradientBatches:
        return batches

    return {"data_loader_builder": build, "loss_fn": loss, "loss_function": loss}
