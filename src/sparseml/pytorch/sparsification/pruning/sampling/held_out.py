"""Batches that are kept out of an estimate, to judge by the loss on them what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm

from sparseml.pytorch.utils.distributed import gather_objects

_LOGGER = logging.getLogger(__name__)
_FEWEST, _MOST = 256, 4096
_SHARE = 32
_JOINED = 128  # samples that a batch norm should see at once

Batch = tuple[Any, Any, Any]


@dataclass(frozen=True)
class HeldOut:
    """Batches and the loss on them.

    :param batches: of this rank
    :param loss: called with a model and a batch; a scalar, without a graph
    """

    batches: Sequence[Batch]
    loss: Callable[[Module, Batch], Tensor]

    @property
    def samples(self) -> int:
        """How many samples this rank holds."""
        return sum(map(count_samples, self.batches))

    def losses(self, module: Module, batch_statistics: bool = False) -> list[float]:
        """Return the loss of each batch, of all ranks one after the other, the same on all ranks.

        :param module: in eval mode
        :param batch_statistics: let batch norms normalise by the batch instead of by what they have
            learned, as they will once they have learned the new weights
        """
        with _by_batch(module, batch_statistics), torch.no_grad():
            own = [self.loss(module, batch) for batch in self.batches]
        losses = torch.stack([one.detach().double().cpu() for one in own]).tolist()
        return [loss for losses_of_rank in gather_objects(losses) for loss in losses_of_rank]


def learning_norms(module: Module) -> list[Module]:
    """Return the batch norms that learn statistics in training; frozen ones do not."""
    trained = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    return [
        part
        for part in trained
        if part.track_running_stats
        and all(param.requires_grad for param in part.parameters(recurse=False))
    ]


def wanted_batches(gradients: int, samples: int, per_sample: bool) -> int:
    """Return how many batches to keep out: a thirty-second of what gradients are sampled from.

    :param gradients: how many will be sampled
    :param samples: in a batch
    :param per_sample: whether each sample gives one
    """
    batches = gradients / samples if per_sample else gradients
    least, most = -(-_FEWEST // samples), max(2, _MOST // samples)
    return max(2, min(max(least, round(batches / _SHARE)), most))


def count_samples(batch: Batch) -> int:
    """Return how many samples a batch has, at least 1."""
    return max([1, *(leaf.shape[0] for leaf in _tensors(batch[:2])[:1])])


def joined(batches: Sequence[Batch]) -> list[Batch]:
    """Return batches put together to larger ones, as a batch norm needs, where they can be."""
    groups: list[list[Batch]] = []
    for batch in batches:
        if groups and sum(map(count_samples, groups[-1])) < _JOINED:
            groups[-1].append(batch)
        else:
            groups.append([batch])
    if len(groups) > 2 and sum(map(count_samples, groups[-1])) < _JOINED // 2:
        groups[-2:] = [groups[-2] + groups[-1]]
    made = [_together(group) for group in groups]
    return [one for one in made if one is not None] if all(made) else list(batches)


def same_batch(first: Batch, second: Batch) -> bool:
    """Whether two batches hold the same values."""
    pairs = [_tensors(one) for one in (first, second)]
    return [one.shape for one in pairs[0]] == [one.shape for one in pairs[1]] and all(
        torch.equal(one, other) for one, other in zip(*pairs, strict=True)
    )


def _tensors(tree: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim]


def _together(group: Sequence[Batch]) -> Batch | None:
    """One batch of several; None unless they are tensors, and nothing else, of samples alike."""
    flat = [torch.utils._pytree.tree_flatten(batch) for batch in group]
    if any(form != flat[0][1] for _, form in flat):
        return None
    columns = list(zip(*(leaves for leaves, _ in flat), strict=True))
    sizes = [count_samples(batch) for batch in group]
    for column in columns:
        if not all(isinstance(leaf, Tensor) and leaf.ndim for leaf in column):
            return None
        if [leaf.shape[0] for leaf in column] != sizes or len({x.shape[1:] for x in column}) > 1:
            return None
    whole = [torch.cat(column) for column in columns]
    batch: Batch = torch.utils._pytree.tree_unflatten(whole, flat[0][1])
    return batch


@contextmanager
def _by_batch(module: Module, wanted: bool) -> Iterator[None]:
    norms = learning_norms(module) if wanted else []
    modes = [norm.training for norm in norms]
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.training = mode
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
