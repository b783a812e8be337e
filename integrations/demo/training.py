"""The training loop. What sparseml adds to it is the wrapped optimizer.

Pruning by gradients in one shot needs no loop, only batches and a loss: see :func:`grad_sampler`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

import torch
from task import Digits, NoisyBatches
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils import BaseLogger

BATCH_SIZE = 64
WEIGHT_DECAY = 0.3


def train(
    model: Module,
    manager: ScheduledModifierManager,
    digits: Digits,
    seed: int,
    loggers: list[BaseLogger],
    on_epoch: Callable[[int, int, float], None],
) -> int:
    """Train as the recipe says: its epochs, learning rates and pruning.

    :param on_epoch: called after every epoch with its number, from 1, the optimizer steps done so
        far, and the epoch's mean loss
    :return: the optimizer steps of an epoch
    """
    batches = NoisyBatches(digits.train_images, digits.train_labels, BATCH_SIZE, seed)
    adam = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    optimizer = manager.modify(
        model,
        adam,
        steps_per_epoch=len(batches),
        loggers=loggers,
        grad_sampler=grad_sampler(digits, seed, manager.max_epochs),  # for those that ask for it
    )
    for epoch in range(manager.max_epochs):
        model.train()
        total = 0.0
        for images, labels in batches:
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        on_epoch(epoch + 1, (epoch + 1) * len(batches), total / len(batches))
    manager.finalize(model)
    return len(batches)


def grad_sampler(digits: Digits, seed: int, epochs: int = 1) -> dict[str, Any]:
    """The batches and the loss of the training, for modifiers that prune by gradients."""

    def build() -> Iterator[tuple[list[Tensor], dict[str, Any], Tensor]]:
        batches = NoisyBatches(digits.train_images, digits.train_labels, BATCH_SIZE, seed)
        for images, labels in chain.from_iterable(repeat(batches, epochs)):
            yield [images], {}, labels  # the model's arguments and keywords, the loss's target

    # the demo draws a bar of its own
    return {"data_loader_builder": build, "loss_fn": cross_entropy, "progress_bar": False}


@torch.inference_mode()
def accuracy(model: Module, digits: Digits) -> float:
    """The part of the test images that is read correctly."""
    model.eval()
    hits = model(digits.test_images).argmax(dim=1) == digits.test_labels
    return hits.float().mean().item()
