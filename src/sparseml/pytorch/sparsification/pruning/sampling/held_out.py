"""Batches that are kept out of an estimate, to judge on them what comes of it.

What comes of gradients of the loss is judged by the loss. Gradients of the outputs tell how a
network is kept as it is, so of a classifier it is the distance between the classes' probabilities
before and after that judges: it has no long tails, as the loss has on few samples of which a
network was all too sure, and follows the accuracy more closely.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.utils.distributed import any_rank, gather_objects

_LOGGER = logging.getLogger(__name__)
_FEWEST, _MOST = 256, 4096
_SHARE = 32
_AGAIN = 4  # times as many batches judge what comes close to the best
_JOINED = 128  # samples that a batch norm should see at once

Batch = tuple[Any, Any, Any]


class Verdict(NamedTuple):
    """How a model does on a batch."""

    by: float
    """What decides: the loss, or the distance."""
    loss: float


class HeldOut:
    """Batches, and how a model does on them.

    :param batches: of this rank
    :param run: called with a model and a batch; the loss, a scalar, and the scores of classes,
        ``[N, classes]``, by whose probabilities to judge, or None to judge by the loss
    :param norms: the batch norms of the model whose statistics follow what they see in training
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        run: Callable[[Module, Batch], tuple[Tensor, Tensor | None]],
        norms: Sequence[Module] = (),
    ) -> None:
        self.batches, self.norms = batches, norms
        self._run = run
        self._before: list[Tensor] | None = None

    @property
    def samples(self) -> int:
        """How many samples this rank holds."""
        return sum(map(count_samples, self.batches))

    @property
    def measure(self) -> str:
        """What decides, in words."""
        if self._before is None:
            return "loss"
        return "distance of the classes' probabilities from those of before"

    def begin(self, module: Module) -> list[float]:
        """Return the loss of each batch before anything is changed, and keep the probabilities.

        All ranks return the same: the losses of all, one rank's after the other's.

        :param module: in eval mode
        """
        with torch.no_grad():
            found = [self._run(module, batch) for batch in self.batches]
        known = [scores.float().softmax(1) for _, scores in found if scores is not None]
        self._before = None if any_rank(len(known) < len(found)) else known
        return _gathered([[loss for loss, _ in found]])[0]

    def judge(self, module: Module, batch_statistics: bool = False) -> list[Verdict]:
        """Return how a model does on each batch of all ranks, the same on all ranks.

        :param module: in eval mode
        :param batch_statistics: let batch norms normalise by the batch instead of by what they have
            learned, as they will once they have learned the new weights
        """
        losses, deciding = [], []
        with _by_batch(self.norms if batch_statistics else ()), torch.no_grad():
            for place, batch in enumerate(self.batches):
                loss, scores = self._run(module, batch)
                losses.append(loss)
                if self._before is None or scores is None:
                    deciding.append(loss)
                else:
                    deciding.append(probability_distance(self._before[place], scores))
        return [Verdict(*pair) for pair in zip(*_gathered([deciding, losses]), strict=True)]


def _gathered(columns: Sequence[Sequence[Tensor]]) -> list[list[float]]:
    """Numbers of all ranks, one rank's after the other's, in each column."""
    own = [torch.stack([one.double().cpu() for one in column]).tolist() for column in columns]
    ranks = gather_objects(own)
    return [[number for rank in ranks for number in rank[place]] for place in range(len(columns))]


def probability_distance(before: Tensor, scores: Tensor) -> Tensor:
    r"""Return the mean total variation distance of what classes are given.

    It is :math:`\frac12 \sum_c |p_c - q_c|`, the mean over samples: between 0 and 1, and the
    accuracy of labels drawn by ``before`` changes by no more.

    :param before: probabilities, ``[N, classes]``
    :param scores: logits, ``[N, classes]``
    :return: a scalar; NaN where a score is
    """
    return (before - scores.float().softmax(1)).abs().sum(1).mean() / 2


class Stream(Protocol):
    """Where batches come from, round after round."""

    rounds: int
    drawn: int
    in_order: bool

    def next_batch(self) -> Any: ...


class KeptOut:
    """Batches that are drawn from a stream and left out when its data are gone through again.

    :param stream: of the process
    :param owner: the modifier, for messages
    :param told: whether it has been warned before that data may have come again
    """

    def __init__(self, stream: Stream, owner: str, told: bool = False) -> None:
        self._stream, self._owner = stream, owner
        self.batches: list[Batch] = []
        self._rounds = self._skipped = 0
        self.told = told

    def draw(self, wanted: Callable[[Batch], int]) -> str:
        """Draw the next batches, of data that end soon at most a half.

        :param wanted: how many, by the first of them
        :return: what is wrong where none of the data are left to go on with, else ""
        """
        stream = self._stream
        kept, whole = [stream.next_batch()], stream.drawn == 1
        self._rounds = stream.rounds  # these may be the last ones of a round
        count = wanted(kept[0])
        while len(kept) < count:
            before, batch = stream.rounds, stream.next_batch()
            if stream.rounds > before and whole:
                kept = kept[: len(kept) // 2]
                break
            whole = whole or stream.rounds > before
            kept.append(batch)
        self.batches = kept
        alike = len(kept) > 1 and all(same_batch(kept[0], other) for other in kept[1:])
        return self._too_few() if alike or not kept else ""

    def parts(self, gradients: int, per_sample: bool, of_outputs: bool) -> list[list[Batch]]:
        """Draw what judges what comes of gradients about to be sampled.

        :param gradients: how many, on this rank
        :return: batches to judge by; for classifiers by gradients of the outputs also three times
            as many, to judge again by what comes close to the best, if all ranks have any left
        :raises RuntimeError: on all ranks, where one has too few data to keep any out
        """
        first = 0

        def wanted(batch: Batch) -> int:
            nonlocal first
            first = wanted_batches(gradients, count_samples(batch), per_sample)
            return first * _AGAIN if of_outputs and count_class_labels(batch) else first

        failure = self.draw(wanted)
        if any_rank(bool(failure)):
            raise RuntimeError(failure or f"{self._owner}: another rank has too few data")
        parts = [self.batches[:first], self.batches[first:]]
        return parts[: 1 if any_rank(not parts[1]) else 2]

    def next_batch(self) -> Batch:
        """Return the stream's next batch; when data are gone through again, one not kept out.

        :raises RuntimeError: where there is no other
        """
        batch, skipped = self._stream.next_batch(), 0
        while self._stream.rounds > self._rounds and any(
            same_batch(batch, one) for one in self.batches
        ):
            skipped += 1
            if skipped > len(self.batches):
                raise RuntimeError(self._too_few())
            batch = self._stream.next_batch()
        self._skipped += skipped
        return batch

    def tell_if_seen(self) -> None:
        """Warn, once, if data drawn anew, in another order, may hold what was kept out."""
        stream = self._stream
        again = stream.rounds > self._rounds and not stream.in_order
        if again and not self._skipped and not self.told:
            self.told = True
            text = "%s: the data were gone through again in another order, so what judges the "
            text += "dampening may be in the estimate, too; give more data, or lower num_grads"
            _LOGGER.warning(text, self._owner)

    def _too_few(self) -> str:
        return (
            f"{self._owner}: damp: auto judges by batches that are kept out of the estimate, and "
            "the data of the grad_sampler have too few different ones to keep any out; give more "
            "data, or a number for damp"
        )


def wanted_batches(gradients: int, samples: int, per_sample: bool) -> int:
    """Return how many batches to keep out: a thirty-second of what gradients are sampled from.

    :param gradients: how many will be sampled
    :param samples: in a batch
    :param per_sample: whether each sample gives one
    """
    batches = gradients / samples if per_sample else gradients
    least, most = -(-_FEWEST // samples), max(2, _MOST // samples)
    return max(2, min(max(least, round(batches / _SHARE)), most))


def count_class_labels(batch: Batch) -> int:
    """Return how many whole numbers a batch has for labels in one dimension."""
    labels = batch[2] if batch[1].get("labels") is None else batch[1]["labels"]
    whole = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.ndim == 1
    return len(labels) if whole else 0


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
def _by_batch(norms: Sequence[Module]) -> Iterator[None]:
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
