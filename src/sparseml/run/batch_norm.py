"""Batch norms after pruning: their running statistics belong to the weights before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.tensors.nested import tensors_module_forward, tensors_on
from sparseml.run.errors import RunError
from sparseml.run.processes import Processes
from sparseml.run.progress import shown_progress


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
    with _put_back(norms, "momentum", "num_batches_tracked"):
        for norm in norms:
            norm.momentum = 0.0
            norm.num_batches_tracked = None
        yield


@contextmanager
def _put_back(modules: Iterable[nn.Module], *names: str) -> Iterator[None]:
    before = [(module, name, getattr(module, name)) for module in modules for name in names]
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@torch.no_grad()
def retune_batch_norm(model: nn.Module, loader: Iterable, batches: int, where: Processes) -> int:
    """Measure the running statistics of all batch norms anew, on plain means over some batches.

    Nothing else changes: no weight, no mode, and no dropout is active.

    :param loader: yields ``(inputs, labels)``, augmented as the model was trained on them: other
        inputs have other statistics. Inputs are a tensor, or a mapping of keywords to tensors. The
        loader is begun once
    :param batches: at most so many are used
    :return: how many batch norms there were
    :raises RunError: if the loader yields nothing
    """
    norms = tracked_norms(model)
    if not norms or batches < 1:
        return 0
    seen = 0
    with evaluating(model), _put_back(norms, "momentum"):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over all batches
            norm.train()
        with shown_progress("measuring batch norms", batches, where.is_first) as advance:
            for inputs, *_ in itertools.islice(loader, batches):
                placed = tensors_on(inputs, where.device)
                tensors_module_forward(placed, model, check_feat_lab_inp=False)
                seen += 1
                advance(seen, "")
    if not seen:
        raise RunError("--bn-retune: there is not one batch to measure batch norms on")
    where.average_buffers(model)
    return len(norms)
