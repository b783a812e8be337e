"""Running statistics around a one-shot pruning: what ``apply`` does with the data it is given."""

from __future__ import annotations

import copy
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sparseml.pytorch.sparsification.pruning.sampling.given import call_builder, parts_of
from sparseml.pytorch.sparsification.statistics.judging import (
    Judged,
    StatisticsTuner,
    Unfit,
    norms_to_tune,
)
from sparseml.pytorch.sparsification.statistics.measuring import statistics_holders
from sparseml.pytorch.utils.batch_streams import Batch, GradientBatches
from sparseml.pytorch.utils.distributed import process_rank
from sparseml.pytorch.utils.params import distinct_params
from sparseml.pytorch.utils.saving.rng import OwnRandomNumbers
from sparseml.pytorch.utils.tensors.nested import iter_tensors

_LOGGER = logging.getLogger(__name__)
_MOST_BYTES = 2**29  # of batches that are kept in memory
_MOST_BATCHES = 4096


def loss_of_logits(output: Any, labels: Tensor) -> Tensor:
    """Return the cross entropy of a model's output, or of the ``logits`` in it.

    :raises ValueError: where these do not fit the labels, as in language models: say another loss
    """
    logits = getattr(output, "logits", output)
    try:
        return cross_entropy(logits, labels)
    except (RuntimeError, TypeError, ValueError) as error:
        found = [
            f"of shape {tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
            for one in (logits, labels)
        ]
        raise ValueError(
            f"cross entropy, the default loss, does not fit an output {found[0]} and labels "
            f"{found[1]}; give a loss: {error}"
        ) from error


@dataclass(frozen=True)
class Pairs:
    """Batches of any loader as pairs of inputs and labels.

    :raises ValueError: as it is gone through, for a batch without labels
    """

    data: Iterable[Any]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for batch in self.data:
            if isinstance(batch, Mapping):
                inputs = dict(batch)
                if "labels" not in inputs:
                    raise ValueError(f"batches must have labels, found the keys {[*inputs]}")
                yield inputs, inputs.pop("labels")
            elif isinstance(batch, (tuple, list)) and len(batch) > 1:
                yield batch[0], batch[1]
            else:
                raise ValueError(
                    "batches must have labels: (inputs, labels), or a mapping with labels; found "
                    f"a {type(batch).__name__}"
                )


class TunedAround:
    """What measures running statistics anew around a one-shot pruning, by what ``apply`` is given.

    :param model: before it is pruned; a copy of it is kept if there is anything to do
    :param bn_retune: how many batches to measure on, 0 for none, None for enough
    :param bn_data: batches as in training; by default those of the ``grad_sampler``
    :param grad_sampler: as modifiers take it
    :param keywords: for its builder
    :raises ValueError: for a number that is negative or not whole
    """

    def __init__(
        self,
        model: nn.Module,
        bn_retune: int | None,
        bn_data: Any,
        grad_sampler: Any,
        keywords: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        wrong = isinstance(bn_retune, bool) or not isinstance(bn_retune, (int, type(None)))
        if wrong or (bn_retune is not None and bn_retune < 0):
            raise ValueError(f"bn_retune must be a number of batches, 0 or more, found {bn_retune}")
        self._asked = bool(bn_retune) or bn_data is not None
        self._tuner: StatisticsTuner | None = None
        off, some_data = bn_retune == 0, bn_data is not None or isinstance(grad_sampler, Mapping)
        if off or not (some_data or self._asked):
            return
        try:
            norms = norms_to_tune(model)
            if not some_data:
                raise Unfit("there are no data: give bn_data, a loader as in training")
            self._dense = _copied(model)
        except Unfit as reason:
            self._tell(reason)
            return
        loss: Callable[[Any, Any], Tensor] = loss_of_logits
        build: Callable[[], Any]
        if isinstance(grad_sampler, Mapping):
            builder, loss = parts_of(grad_sampler, "bn_retune")
            build = functools.partial(call_builder, builder, keywords)
        if bn_data is not None:
            device, seeds = norms[0].get_buffer("running_var").device, (0, process_rank())
            build = functools.partial(GradientBatches, lambda: Pairs(bn_data), seeds, device)
        self._tuner = StatisticsTuner(_Kept(build), loss, bn_retune)

    def finish(self, pruned: nn.Module) -> Judged | None:
        """Tune the pruned model, unless the dense one says that the data do not fit.

        :return: what came of it; None if nothing was measured, which is told in one line
        """
        if self._tuner is None or _same_parameters(self._dense, pruned):
            return None
        frozen = len(statistics_holders(pruned))
        try:
            _LOGGER.info("batch norms %s", self._tuner.check(self._dense).told)
            judged = self._tuner.tune(pruned)
        except Unfit as reason:
            self._asked = True  # it was about to be done
            self._tell(reason)
            return None
        frozen -= len(judged.norms)
        left = f"; {frozen} frozen ones stay as they are" if frozen else ""
        _LOGGER.info("batch norms: %s%s", judged.told, left)
        return judged

    def _tell(self, reason: Unfit) -> None:
        level = logging.WARNING if self._asked else logging.DEBUG
        _LOGGER.log(level, "batch norms keep the statistics of the dense model: %s", reason)


class _Kept:
    """The first batches of a loader, kept in memory so that they are the same each time.

    Random numbers are drawn apart from all others.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._batches: list[Batch] = []
        self._source: Iterator[Any] | None = None
        self._own = OwnRandomNumbers()
        self._bytes = 0

    def __call__(self) -> Iterator[Batch]:
        for number in itertools.count():
            if number == len(self._batches) and not self._draw():
                return
            yield self._batches[number]

    def _draw(self) -> bool:
        """Draw one more batch; tell whether there was one, and room for it."""
        if self._bytes > _MOST_BYTES or len(self._batches) > _MOST_BATCHES:
            return False
        with self._own.drawing():
            if self._source is None:
                self._own.begin(torch.initial_seed() % 2**64, process_rank())
                source = self._build()
                source = source if isinstance(source, Iterable) else source()
                self._source = iter(source)
            batch = next(self._source, None)
        if batch is None:
            return False
        if not isinstance(batch, (tuple, list)) or len(batch) != 3:
            raise Unfit(
                "the data of the grad_sampler are not (forward_args, forward_kwargs, target)"
            )
        self._batches.append((list(batch[0]), dict(batch[1]), batch[2]))
        self._bytes += sum(one.nbytes for one in iter_tensors([batch[0], batch[1]]))
        return True


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError, ValueError) as error:
        raise Unfit(f"a {type(model).__name__} cannot be copied: {error}") from error


def _same_parameters(one: nn.Module, other: nn.Module) -> bool:
    pairs = [
        {found.name: found.param for found in distinct_params(model)} for model in (one, other)
    ]
    return pairs[0].keys() == pairs[1].keys() and all(
        torch.equal(param, pairs[1][name]) for name, param in pairs[0].items()
    )
