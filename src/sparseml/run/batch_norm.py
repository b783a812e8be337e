"""Batch norms after pruning: their running statistics belong to the weights before it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparseml.pytorch.sparsification.statistics import (
    StatisticsTuner,
    Unfit,
    averaged,
    measure_statistics,
    norms_to_tune,
    tunable_norms,
    write_statistics,
)
from sparseml.pytorch.utils.batch_streams import GradientBatches
from sparseml.pytorch.utils.tensors.nested import tensors_on
from sparseml.run.errors import RunError
from sparseml.run.processes import Processes
from sparseml.run.progress import say, shown_progress
from sparseml.run.session import Session
from sparseml.run.settings.groups import RunSettings

_STREAM = 0x626E  # tells its batches from those that gradients are sampled on


def tracked_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a model that keep running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keep running statistics as they are while the model runs in training mode."""
    norms = tracked_norms(model)
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
            norm.num_batches_tracked = None
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count


def retune_batch_norm(model: nn.Module, loader: Iterable, batches: int, where: Processes) -> int:
    """Measure the running statistics of all batch norms anew, on plain means over some batches.

    Nothing else changes: no weight, no mode, and no dropout is active. Frozen ones stay as they
    are.

    :param loader: yields ``(inputs, labels)``, augmented as the model was trained on them: other
        inputs have other statistics. Inputs are a tensor, or a mapping of keywords to tensors. The
        loader is begun once
    :param batches: at most so many are used
    :return: how many batch norms there were
    :raises RunError: if the loader yields nothing
    """
    norms = tunable_norms(model)
    if not norms or batches < 1:
        return 0

    def placed(advance: Callable[[int, str], None]) -> Iterator[Any]:
        for number, (inputs, *_) in enumerate(itertools.islice(loader, batches), start=1):
            here = tensors_on(inputs, where.device)
            yield ([], here, None) if isinstance(here, dict) else ([here], {}, None)
            advance(number, "")

    with shown_progress("measuring batch norms", batches, where.is_first) as advance:
        measured = measure_statistics(model, norms, placed(advance))
    if not measured:
        raise RunError("--bn-retune: there is not one batch to measure batch norms on")
    write_statistics(norms, averaged(measured, norms))
    return len(norms)


def tuner_of(session: Session, run: RunSettings) -> StatisticsTuner | None:
    """Return what tunes the models of a one-shot run, on training data augmented as in training.

    :return: None if that was not asked for, or there is nothing to tune, which is told in one line
    """
    if run.bn_retune == 0:
        return None
    try:
        norms_to_tune(session.model)
    except Unfit as reason:
        say(f"--bn-retune: {reason}", bool(run.bn_retune) and session.where.is_first)
        return None
    where = session.where
    seeds = (run.seed, where.rank, _STREAM)
    stream = functools.partial(GradientBatches, session.training_batches, seeds, where.device)
    return StatisticsTuner(stream, session.grad_sampler()["loss_fn"], run.bn_retune)
