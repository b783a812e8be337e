"""Gradients sampled from data, for modifiers that prune by them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.parallel import DataParallel, DistributedDataParallel

from sparseml.pytorch.utils.rng import get_rng_state, set_rng_state
from sparseml.pytorch.utils.sparsification import GradSampler

__all__ = ["GradientSource", "undisturbed"]

_LOGGER = logging.getLogger(__name__)

_BUILDER = "data_loader_builder"
_LOSSES = ("loss_function", "loss_fn")
_MOST_BAD = 0.1


@contextmanager
def undisturbed(module: Module) -> Iterator[None]:
    """Within the block the module is in eval mode and without gradients; after it, as before.

    Modes, gradients, buffers and random generators are put back, so that what happens in the block
    leaves no trace in the training around it.
    """
    modes = [(part, part.training) for part in module.modules()]
    grads = [(param, param.grad) for param in module.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    rng = get_rng_state()
    try:
        module.eval()
        for param, _ in grads:
            param.grad = None
        yield
    finally:
        for part, training in modes:
            part.training = training
        for param, grad in grads:
            param.grad = grad
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        set_rng_state(rng)


class GradientSource:
    """Gradients of a model on samples of data, as often as they are asked for.

    A loader that can be gone through again starts anew each time. One that cannot (a generator) is
    continued where it was left, also by a resumed run. When the data end early they repeat.

    :param given: what the user passes as ``grad_sampler``: a mapping with ``data_loader_builder``,
        a callable that returns an iterable of ``(forward_args, forward_kwargs, loss_target)``, and
        ``loss_function`` (or ``loss_fn``), called with output and target
    :param owner: the modifier, for messages
    :param call: calls the builder in the way that the owner does
    :raises RuntimeError: without a sampler, and for one that lacks a key
    """

    def __init__(self, given: Any, owner: str, call: Callable[[Callable[..., Any]], Any]) -> None:
        builder, loss = _parts(given, owner)
        self._owner = owner
        self._build = lambda: call(builder)
        self._loader: Iterable[Any] = self._build()
        self._drawn = 0
        self._repeats = False
        self._sampler = GradSampler(self._samples, loss)

    def gradients(
        self, module: Module, params: Iterable[Parameter], count: int, progress_bar: bool = False
    ) -> Iterator[list[Tensor | None]]:
        """Yield ``count`` gradients of each parameter, None where the loss does not depend on it.

        Samples with a gradient that is not finite are left out. To be used within
        :func:`undisturbed`. A (Distributed)DataParallel module is looked into, so that every rank
        gets the gradients of its own samples.

        :raises RuntimeError: after the last one, when more than a tenth were not finite
        """
        bare = (
            module.module if isinstance(module, (DataParallel, DistributedDataParallel)) else module
        )
        wanted, bad = list(params), 0
        for _ in self._sampler.iter_module_backwards(bare, count, progress_bar):
            grads = [param.grad for param in wanted]
            if all(bool(grad.isfinite().all()) for grad in grads if grad is not None):
                yield grads
            else:
                bad += 1
        if bad > _MOST_BAD * count:
            raise RuntimeError(
                f"{self._owner}: {bad} of {count} sampled gradients are not finite; check the loss "
                "function and the data of grad_sampler"
            )
        if bad:
            _LOGGER.warning("%s: left out %d gradients that are not finite", self._owner, bad)

    def progress_state(self) -> dict[str, Any]:
        """How far a loader that cannot be gone through again has come."""
        return {"drawn": self._drawn}

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`, skipping samples."""
        self._drawn = state["drawn"]
        if isinstance(self._loader, Iterator) and self._drawn:
            self._loader = self._build()
            for _ in zip(range(self._drawn), self._loader, strict=False):
                pass

    def _samples(self) -> Iterator[Any]:
        while True:
            empty = True
            for sample in self._loader:
                empty = False
                self._drawn += isinstance(self._loader, Iterator)
                yield sample
            if empty and not self._drawn:
                raise RuntimeError(
                    f"{self._owner}: the {_BUILDER} of grad_sampler gives no samples"
                )
            if not self._repeats:
                _LOGGER.warning("%s: the data of grad_sampler have ended; repeating", self._owner)
                self._repeats = True
            if isinstance(self._loader, Iterator):
                self._loader, self._drawn = self._build(), 0


def _parts(given: Any, owner: str) -> tuple[Callable[..., Any], Any]:
    if given is None:
        raise RuntimeError(
            f"{owner} prunes by gradients: give grad_sampler={{'{_BUILDER}': ..., "
            f"'{_LOSSES[0]}': ...}} to the manager's modify(), initialize() or apply()"
        )
    keys = [str(key) for key in given] if isinstance(given, Mapping) else []
    loss = next((key for key in _LOSSES if key in keys), None)
    if _BUILDER not in keys or loss is None:
        lacking = _BUILDER if _BUILDER not in keys else f"{_LOSSES[0]} (or {_LOSSES[1]})"
        found = keys if isinstance(given, Mapping) else type(given).__name__
        raise RuntimeError(f"grad_sampler of {owner} lacks {lacking}, found {found}")
    return given[_BUILDER], given[loss]
