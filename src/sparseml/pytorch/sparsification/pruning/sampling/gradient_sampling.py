"""Gradients sampled from data, for the modifiers that prune by them.

The data and the loss come from a ``grad_sampler``, which is handed to the manager's ``modify``,
``initialize`` or ``apply``:

.. code-block:: python

    def build(batch_size=16):          # called with the recipe's grad_sampler_kwargs
        for images, labels in make_loader(batch_size):
            yield [images], {}, labels  # forward_args, forward_kwargs, loss_target

    manager.apply(model, grad_sampler={"data_loader_builder": build, "loss_fn": cross_entropy})

``loss_function`` is another name for ``loss_fn``. Two more keys are optional: ``autocast``, a
dtype in which to run the model (``torch.bfloat16`` or ``torch.float16``; by default everything runs
in the precision of the weights, also when training does not), and ``progress_bar`` (by default
where a terminal is attached).

Sampling leaves no trace in the training around it. Modes of all submodules, buffers (the statistics
of batch normalization among them) and random generators are put back; gradients are taken from the
graph without touching ``.grad``, so those of the training batch that is under way stay in place for
the optimizer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Module
from tqdm.auto import tqdm

from sparseml.pytorch.sparsification.pruning.sampling.sample_capture import LayerCapture
from sparseml.pytorch.utils.batch_streams import (
    SamplingData,
    call_builder,
)
from sparseml.pytorch.utils.distributed import (
    any_rank,
    is_distributed,
    process_rank,
    world_size,
)
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import full_value, is_sharded
from sparseml.utils.text import did_you_mean

__all__ = ["GradientSampler", "Gradients", "undisturbed"]

_LOGGER = logging.getLogger(__name__)
_BUILDER = "data_loader_builder"
_LOSSES = ("loss_function", "loss_fn")
_OPTIONS = ("autocast", "progress_bar")
_MOST_SKIPPED = 0.1
_FLOAT16_SCALE = 1024.0


class Gradients(Protocol):
    """The gradients of one batch."""

    @property
    def count(self) -> int:
        """How many there are of each parameter."""

    def of(self, index: int) -> Tensor:
        """Those of one parameter, ``[count, *shape]``."""


class _BatchGradients:
    count = 1

    def __init__(self, grads: Sequence[Tensor]) -> None:
        self._grads = grads

    def of(self, index: int) -> Tensor:
        return self._grads[index].unsqueeze(0)


@contextmanager
def undisturbed(module: Module) -> Iterator[None]:
    """Within the block the module is in eval mode; after it modes and buffers are as before."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


class GradientSampler:
    """Samples gradients of a model, as many as asked for, again and again.

    Within a distributed run the ranks share the work: each samples its part of the number asked
    for from its own batches, and no gradient is averaged over ranks. Where parameters are sharded
    (FSDP2) their gradients exist only as means over ranks; then every rank takes part in each, and
    a gradient is that of the batches of all ranks together.

    :param given: the ``grad_sampler``, see above
    :param kwargs: the recipe's ``grad_sampler_kwargs``
    :param owner: the modifier, for messages
    :param per_sample: one gradient per sample of a batch (of linear layers and two-dimensional
        convolutions, for losses that average over the batch) instead of one per batch
    :raises RuntimeError: without a sampler, and for one that lacks a key or has an unknown one
    """

    def __init__(
        self, given: Any, kwargs: Mapping[str, Any], owner: str, per_sample: bool = False
    ) -> None:
        builder, self._loss = _parts(given, owner)
        self._owner = owner
        self._per_sample = per_sample
        self._autocast: torch.dtype | None = given.get("autocast")
        self._scale = _FLOAT16_SCALE if self._autocast is torch.float16 else 1.0
        show = given.get("progress_bar")
        self._hide_bar = process_rank() != 0 or (None if show is None else not show)
        self._data = SamplingData(lambda: call_builder(builder, kwargs), owner)
        self._failure = ""
        self.same_on_all_ranks = False

    def gradients(
        self, module: Module, params: Sequence[NamedLayerParam], count: int
    ) -> Iterator[Gradients]:
        """Gradients, until there are ``count`` on all ranks together.

        Batches with a gradient that is not finite are skipped, and others taken instead. When a
        tenth of ``count`` has been skipped the iterator ends early; call :meth:`require_sound`
        after the loop.

        :raises RuntimeError: naming a parameter that gets no gradient
        """
        for found in params:
            if not found.param.requires_grad:
                raise RuntimeError(
                    f"{self._owner} prunes {found.name} by its gradients, but it has none: its "
                    "requires_grad is False"
                )
        sharded = any(is_sharded(found.param) for found in params)
        self.same_on_all_ranks = sharded or not is_distributed()
        self._failure = ""
        ranks = 1 if sharded else world_size()
        share = count // ranks + (process_rank() % ranks < count % ranks)
        return self._sampled(unwrap_module(module, root=True), params, share)

    def _sampled(
        self, bare: Module, params: Sequence[NamedLayerParam], share: int
    ) -> Iterator[Gradients]:
        taken = skipped = 0
        bar = tqdm(total=share, disable=self._hide_bar, desc=f"{self._owner}: gradients")
        with bar, undisturbed(bare), self._data.own_random_numbers():
            while taken < share and not self._failure:
                found_now = self._sample(bare, params, share - taken)
                if found_now is None:
                    skipped += 1
                    self._judge(skipped, share)
                    continue
                taken += found_now.count
                bar.update(found_now.count)
                yield found_now
        if skipped and not self._failure:
            _LOGGER.warning(
                "%s: skipped %d batches with gradients that are not finite", self._owner, skipped
            )

    def require_sound(self) -> None:
        """Check the last round of sampling; all ranks raise if one of them has to.

        :raises RuntimeError: if too many gradients were not finite
        """
        if any_rank(bool(self._failure)):
            raise RuntimeError(self._failure or f"{self._owner}: sampling failed on another rank")

    def progress_state(self) -> dict[str, Any]:
        """How far the data have come."""
        return self._data.progress_state()

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`."""
        self._data.load_progress_state(state)

    def _judge(self, skipped: int, share: int) -> None:
        if skipped > _MOST_SKIPPED * share:
            self._failure = (
                f"{self._owner}: {skipped} batches gave gradients that are not finite, more than a "
                f"tenth of the {share} asked for; nothing has been pruned. Check the loss and the "
                "data of the grad_sampler, and whether the training has diverged"
            )

    def _sample(
        self, module: Module, params: Sequence[NamedLayerParam], most: int
    ) -> Gradients | None:
        """The gradients of the next batch, None if they are not finite."""
        args, kwargs, target = self._data.next_batch()
        if self.same_on_all_ranks and is_distributed():
            return self._sample_sharded(module, params, (args, kwargs, target))
        if self._per_sample:
            with LayerCapture(params, (args, kwargs), self._owner) as capture:
                loss = self._forward(module, args, kwargs, target)
            outputs = capture.outputs()
        else:
            capture, outputs = None, [found.param for found in params]
            loss = self._forward(module, args, kwargs, target)
        if not bool(loss.isfinite()):
            return None
        with torch.autocast(loss.device.type, enabled=False):  # also that of the training around
            grads = torch.autograd.grad(loss, outputs, allow_unused=True)
        complete = self._complete(params, grads)
        if not _all_finite(complete):
            return None
        if capture is not None:
            return capture.gradients(complete, most)
        return _BatchGradients(complete)

    def _sample_sharded(
        self, module: Module, params: Sequence[NamedLayerParam], batch: tuple[Any, Any, Any]
    ) -> Gradients | None:
        if self._per_sample:
            raise RuntimeError(
                f"{self._owner}: sharded parameters have no gradient of a single sample; use "
                "fisher_samples: batch"
            )
        before = [(param, param.grad) for param in module.parameters()]
        try:
            for param, _ in before:
                param.grad = None
            loss = self._forward(module, *batch)
            with torch.autocast(loss.device.type, enabled=False):
                loss.backward()
            local = [found.param.grad for found in params]
            grads = [None if grad is None else full_value(grad) for grad in local]
        finally:
            for param, grad in before:
                param.grad = grad
        complete = self._complete(params, grads)
        return _BatchGradients(complete) if _all_finite(complete) else None

    def _forward(self, module: Module, args: Any, kwargs: Any, target: Any) -> Tensor:
        device = next(module.parameters()).device.type
        dtype = self._autocast
        with torch.enable_grad(), torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            output = module(*args, **kwargs)
            if type(output) is tuple:  # a named tuple is a model's own kind of output
                output = output[0]
            loss: Tensor = self._loss(output, target) * self._scale
        return loss

    def _complete(
        self, params: Sequence[NamedLayerParam], grads: Sequence[Tensor | None]
    ) -> list[Tensor]:
        complete = []
        for found, grad in zip(params, grads, strict=True):
            if grad is None:
                raise RuntimeError(
                    f"{self._owner} prunes {found.name} by its gradients, but the loss of the "
                    "grad_sampler does not depend on it"
                )
            complete.append(grad if self._scale == 1.0 else grad / self._scale)
        return complete


def _all_finite(tensors: Sequence[Tensor]) -> bool:
    # one answer per device, so that a GPU is waited for once
    answers: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        answers.setdefault(tensor.device, []).append(tensor.isfinite().all())
    return all(bool(torch.stack(found).all()) for found in answers.values())


def _parts(given: Any, owner: str) -> tuple[Callable[..., Any], Callable[[Any, Any], Tensor]]:
    need = f"{owner} prunes by gradients: give grad_sampler={{'{_BUILDER}': ..., '{_LOSSES[0]}': "
    need += "...} to the manager's modify(), initialize() or apply()"
    if not isinstance(given, Mapping):
        raise RuntimeError(f"{need}, found {given!r}")
    known = (_BUILDER, *_LOSSES, *_OPTIONS)
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise RuntimeError(f"grad_sampler of {owner} has the unknown key {unknown[0]!r}{hint}")
    loss = next((given[key] for key in _LOSSES if key in given), None)
    for what, value in ((_BUILDER, given.get(_BUILDER)), (_LOSSES[0], loss)):
        if not callable(value):
            raise RuntimeError(f"{need}; its {what} must be callable, found {value!r}")
    assert loss is not None
    return given[_BUILDER], loss
