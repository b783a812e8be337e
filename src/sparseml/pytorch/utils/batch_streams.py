"""Batches that gradients are sampled from, drawn apart from those of the training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sparseml.pytorch.utils.saving.rng import OwnRandomNumbers
from sparseml.pytorch.utils.tensors.nested import tensors_on

Batch = tuple[list[Tensor], dict[str, Any], Tensor]


class GradientBatches:
    """Batches for sampling gradients: ``([inputs], {}, labels)``, ``(inputs, {}, labels)`` where
    they are several, or ``([], inputs, labels)`` where they are a mapping of keywords to tensors.

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
            # samplers for several processes do not draw from the global generators
            if hasattr(getattr(loader, "sampler", None), "set_epoch"):
                loader.sampler.set_epoch(number)
            batches = iter(loader)
        while True:
            with own.drawing():
                batch = next(batches, None)
            if batch is None:
                return
            inputs, labels = (tensors_on(part, self._device) for part in batch[:2])
            if isinstance(inputs, dict):
                yield [], inputs, labels
            else:
                yield inputs if isinstance(inputs, list) else [inputs], {}, labels


def make_grad_sampler(
    stream: Callable[[int], Iterable[Batch]], loss: Callable[[Any, Any], Tensor] = cross_entropy
) -> dict[str, Any]:
    """Return what ``manager.modify`` and ``manager.apply`` take as ``grad_sampler``.

    The loss is that of the task alone: no mixup, no smoothed labels, no distillation, whatever the
    training uses.

    :param stream: gives the batches for the n-th modifier that asks, from 0
    :param loss: called with the model's output and the labels, by default logits
        ``[batch, classes]`` and labels ``[batch]``
    """
    numbers = itertools.count()

    def build(**kwargs: Any) -> Iterable[Batch]:
        return stream(next(numbers))

    return {"data_loader_builder": build, "loss_fn": loss, "loss_function": loss}
