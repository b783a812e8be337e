"""Running statistics after pruning: measured anew on training data where that does good."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.sparsification.statistics.measuring import (
    Statistics,
    averaged,
    measure_statistics,
    statistics_holders,
    statistics_of,
    tunable_norms,
    write_statistics,
)
from sparseml.pytorch.utils.batch_streams import Batch
from sparseml.pytorch.utils.distributed import add_up, world_size
from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.tensors.nested import tensors_batch_size

IMAGES = 1600
"""How many inputs statistics are measured on unless it is said otherwise."""
HELD_OUT = 512
"""How many inputs are kept out of that at most, to judge by."""
_EACH = 4  # of so many batches one is held out
_PIECES = 16  # losses at least, if there are as many inputs, to tell how far they scatter
_MOST_IN_PIECE = 16
_SURE = 2.0  # standard errors that a difference has to be away from none
# Statistics of a moving average are not quite those of the last weights, so some cost is no sign of
# other inputs: nats, or this part of a loss above 1. The wrong crops cost a ResNet-20 0.08 nats.
_SLIGHT = 0.02
_GAIN = 0.25  # of the loss: gaining more is as suspicious, as are crops of another scale
_DENSE = "measured anew they take the loss of the dense model from"
UNLIKE = ": these inputs do not look like those that it was trained on; augment them as then"

Loss = Callable[[Any, Any], Tensor]


@dataclass
class Judged:
    """Running statistics as they were and anew, and which of them a model has now.

    :param norms: whose statistics these are
    :param before: the mean loss on held-out batches with the statistics as they were
    :param after: with those that were measured anew
    :param kept: whether the model has the new ones
    :param told: all this in one line
    """

    norms: Sequence[nn.Module]
    old: Statistics
    new: Statistics
    before: float
    after: float
    kept: bool
    told: str

    @contextmanager
    def other(self) -> Iterator[None]:
        """Give the model, within the block, the statistics that it has not."""
        here, there = (self.new, self.old) if self.kept else (self.old, self.new)
        write_statistics(self.norms, there)
        try:
            yield
        finally:
            write_statistics(self.norms, here)


def slight(loss: float) -> float:
    """Return by how much a loss of the dense model may rise with inputs as it was trained on."""
    return _SLIGHT * max(1.0, abs(loss))


class Unfit(Exception):
    """Raised, with the reason, where statistics cannot be or are better not measured anew."""


class StatisticsTuner:
    """Measures the running statistics of pruned models anew, and keeps what lowers the loss.

    Of every four batches one is held out, until there are 512 inputs, and the losses of pieces of
    at most 16 of them are compared in pairs. All processes of a distributed run come to the same
    end; each gives its own batches.

    :param stream: gives, at each call, the same batches in the same order: training data, augmented
        as in training, as other inputs have other statistics. Of these as many are taken as needed
    :param loss: called with the model's output and the target of a batch
    :param batches: how many statistics are measured on, by default enough for 1,600 inputs
    """

    def __init__(
        self, stream: Callable[[], Iterable[Batch]], loss: Loss, batches: int | None = None
    ) -> None:
        self._stream, self._loss, self._batches = stream, loss, batches
        self._held: list[Batch] = []

    def check(self, dense: nn.Module) -> Judged:
        """Measure the statistics of the dense model anew, which ought to change nothing.

        What it costs is told from what few inputs cost: half of them cost twice as much. The model
        has its old statistics at the end.

        :raises Unfit: if it costs the dense model more than that, or gains it a quarter of its loss
            (unless a number of batches was asked for): then these are not the inputs that it was
            trained on; if there are too few, if they have no targets or their loss is not finite;
            if there is nothing to tune
        """
        norms = norms_to_tune(dense)
        old, measured = statistics_of(norms), self._measured(dense, norms)
        before = self._losses(dense)
        try:
            after, one, other = (
                self._with(dense, norms, averaged(part, norms))
                for part in (measured, measured[::2], measured[1::2])
            )
        finally:
            write_statistics(norms, old)
        several = add_up(torch.tensor(len(measured[1::2]))) > 0  # else there is no other half
        few = (one + other) / 2 - after if several else torch.zeros_like(after)
        (was, now, cost), error = _means(before, after, after - few - before)
        if not math.isfinite(was + now):
            raise Unfit(f"the loss of the dense model on held-out batches is {was:g}, then {now:g}")
        figures = f"{was:.4f} to {now:.4f} on held-out batches, sampling error {error:.4f}"
        if cost > max(_SURE * error, slight(was)):
            raise Unfit(
                f"measured anew they take the loss of the dense model from {figures}{UNLIKE}"
            )
        if self._batches is None and -cost > max(_SURE * error, _GAIN * was):
            raise Unfit(
                f"measured anew they take the loss of the dense model from {figures}, which ought "
                f"to stay{UNLIKE}, or ask for a number of batches if its statistics are out of date"
            )
        told = f"measured anew on the dense model: loss {figures}"
        return Judged(norms, old, averaged(measured, norms), was, now, False, told)

    def tune(self, model: nn.Module) -> Judged:
        """Measure the statistics of a pruned model anew; they stay if they lower its loss.

        :raises Unfit: if it has none any more, or the data are too few
        """
        norms = norms_to_tune(model)
        old = statistics_of(norms)
        new = averaged(self._measured(model, norms), norms)
        before, after = self._losses(model), self._with(model, norms, new)
        (was, now, change), _ = _means(before, after, after - before)
        kept = change < 0 or (math.isfinite(now) and not math.isfinite(was))
        if not kept:
            write_statistics(norms, old)
        told = f"{len(norms)} norms measured anew: loss {was:.4f} to {now:.4f} on held-out batches"
        return Judged(norms, old, new, was, now, kept, f"{told}, {'' if kept else 'not '}kept")

    def _measured(self, model: nn.Module, norms: Sequence[nn.Module]) -> list[Statistics]:
        held: list[Batch] = []
        try:
            measured = measure_statistics(model, norms, self._tuned_on(held))
        except ValueError as error:
            raise Unfit(str(error)) from error
        self._held = held
        counts = add_up(torch.tensor([len(measured), len(held)]))
        if not bool(counts.all()):
            raise Unfit("there are too few batches to measure on some and hold out others")
        return measured

    def _tuned_on(self, held: list[Batch]) -> Iterator[Batch]:
        """Yield what is not held out."""
        wanted, ranks = self._batches, world_size()
        apart = used = batches = 0
        for number, batch in enumerate(self._stream()):
            size = max(1, _batch_size(batch))
            if number % _EACH == 1 and apart * ranks < HELD_OUT:
                held.append(batch)
                apart += size
                continue
            # what is held out comes second, so that one batch to measure on is not all
            if (batches >= wanted) if wanted is not None else (used * ranks >= IMAGES):
                return
            yield batch
            used, batches = used + size, batches + 1

    def _with(self, model: nn.Module, norms: Sequence[nn.Module], given: Statistics) -> Tensor:
        write_statistics(norms, given)
        return self._losses(model)

    @torch.no_grad()
    def _losses(self, model: nn.Module) -> Tensor:
        """Return the losses ``[pieces]`` of what this process holds out, in double precision."""
        found, inputs = [], sum(map(_batch_size, self._held))
        size = max(1, min(_MOST_IN_PIECE, inputs // _PIECES))
        with evaluating(model):
            for args, kwargs, target in self._held:
                for some, named, truth in _pieces(args, kwargs, target, size):
                    output = model(*some, **named)
                    try:
                        loss = self._loss(output, truth)
                    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
                        if target is not None:
                            raise
                        raise Unfit("the batches have no labels to tell a loss by") from error
                    found.append(float(loss.detach().mean()))
        return torch.tensor(found, dtype=torch.float64)


def norms_to_tune(model: nn.Module) -> list[nn.Module]:
    """Return the norms whose statistics can be measured anew.

    :raises Unfit: if there are none
    """
    norms, all_of_them = tunable_norms(model), len(statistics_holders(model))
    if not all_of_them:
        raise Unfit("the model has no batch norms with running statistics")
    if not norms:
        raise Unfit(f"all {all_of_them} norms with running statistics are frozen")
    return norms


def _batch_size(batch: Batch) -> int:
    args, kwargs, _ = batch
    return tensors_batch_size([list(args), kwargs])


def _pieces(
    args: Sequence[Any], kwargs: dict[str, Any], target: Any, size: int
) -> Iterator[tuple[Any, ...]]:
    """Yield parts of a batch; all of it where not all of its tensors are of as many inputs."""
    inputs = _batch_size((list(args), kwargs, target))
    parts = [*args, *kwargs.values(), target]
    if not all(isinstance(one, Tensor) and one.ndim and len(one) == inputs for one in parts):
        yield args, kwargs, target
        return
    for begin in range(0, inputs, size):
        some = slice(begin, begin + size)
        named = {name: value[some] for name, value in kwargs.items()}
        yield [one[some] for one in args], named, target[some]


def _means(*columns: Tensor) -> tuple[list[float], float]:
    """Return the means of paired figures ``[pieces]`` of all processes, and the standard error of
    the last."""
    last = columns[-1]
    ones = torch.ones_like(last)
    sums = add_up(torch.stack([one.sum() for one in (ones, *columns, last * last)]))
    count, *totals, squares = (float(one) for one in sums)
    means = [total / count for total in totals]
    variance = max(0.0, squares / count - means[-1] ** 2) if math.isfinite(squares) else math.nan
    return means, math.sqrt(variance / max(count - 1, 1))
