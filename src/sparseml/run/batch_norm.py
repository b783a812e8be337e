"""Batch norms after pruning: their running statistics belong to the weights before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparseml.run.errors import RunError
from sparseml.run.processes import Processes

__all__ = ["frozen_statistics", "retune_batch_norm", "tracked_norms"]


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
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = count


@torch.no_grad()
def retune_batch_norm(model: nn.Module, loader: Iterable, batches: int, where: Processes) -> int:
    """Measure the running statistics of all batch norms anew, on plain means over some batches.

    Nothing else changes: no weight, no mode, and no dropout is active.

    :param loader: yields ``(images, labels)``, augmented as the model was trained on them: other
        images have other statistics. It is begun once
    :param batches: at most so many are used
    :return: how many batch norms there were
    :raises RunError: if the loader yields nothing
    """
    norms = tracked_norms(model)
    if not norms or batches < 1:
        return 0
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    seen = 0
    try:
        for images, *_ in itertools.islice(loader, batches):
            model(images.to(where.device))
            seen += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    if not seen:
        raise RunError("--bn-retune: there is not one batch to measure batch norms on")
    where.average_buffers(model)
    return len(norms)
