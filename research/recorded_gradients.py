"""Gradients of a network's loss, computed once and handed out to several pruning methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batch = tuple[list[Any], dict[str, Any], Tensor]


class RecordingLoss(nn.Module):
    """A network with its loss, which at the first weights takes gradients from memory.

    Methods that are compared prune by gradients of the same batches. As long as the weights are
    those that it began with, the output is, for a batch that was recorded, the sum of all weights
    times their recorded gradients: its gradient is the recorded one, at next to no cost. With other
    weights, as after the first of several steps, and for other batches it is the loss itself.

    :param net: the network, in evaluation mode
    :param params: the weights whose gradients are asked for
    """

    def __init__(self, net: nn.Module, params: Iterable[Tensor]) -> None:
        super().__init__()
        self.net = net
        self._recorded_params = list(params)
        self._first = [param.detach().clone() for param in self._recorded_params]
        self._gradients: list[list[Tensor]] = []

    def record(self, batches: Iterable[Batch], count: int) -> None:
        """Keep the gradients of the first batches, ``count`` values for each weight."""
        self._gradients = []
        for (images, labels, _), _, _ in islice(batches, count):
            loss = cross_entropy(self.net(images), labels)
            self._gradients.append(list(torch.autograd.grad(loss, self._recorded_params)))

    def forward(self, images: Tensor, labels: Tensor, number: int) -> Tensor:
        """The loss of the ``number``-th batch, or what has the same gradient."""
        if number >= len(self._gradients) or not self._at_first():
            return cross_entropy(self.net(images), labels)
        pairs = zip(self._recorded_params, self._gradients[number], strict=True)
        return torch.stack([(param * grad).sum() for param, grad in pairs]).sum()

    def _at_first(self) -> bool:
        pairs = zip(self._recorded_params, self._first, strict=True)
        return all(torch.equal(param, first) for param, first in pairs)


def endless_batches(images: Tensor, labels: Tensor, size: int, seed: int) -> Iterator[Batch]:
    """Numbered batches, all images in a new order in every round."""
    order = torch.Generator().manual_seed(seed)
    number = 0
    while True:
        for chosen in torch.randperm(len(images), generator=order).split(size):
            yield [images[chosen], labels[chosen], number], {}, labels[chosen]
            number += 1


def grad_sampler(build: Callable[[], Iterator[Batch]]) -> dict[str, Any]:
    """What modifiers sample gradients of a :class:`RecordingLoss` by."""
    return {
        "data_loader_builder": lambda: build(),
        "loss_fn": lambda loss, _: loss,
        "progress_bar": False,
    }


def images_only(build: Callable[[], Iterator[Batch]]) -> dict[str, Any]:
    """What modifiers sample gradients of the network itself by, from the same batches."""
    return {
        "data_loader_builder": lambda: (([args[0]], {}, labels) for args, _, labels in build()),
        "loss_fn": cross_entropy,
        "progress_bar": False,
    }
