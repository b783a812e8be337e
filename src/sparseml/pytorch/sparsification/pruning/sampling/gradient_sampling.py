"""Gradients sampled from data, for the modifiers that prune by them.

The data and the loss come from a ``grad_sampler``, which is handed to the manager's ``modify``,
``initialize`` or ``apply``:

.. code-block:: python

    def build(batch_size=16):          # called with the recipe's grad_sampler_kwargs
        for images, labels in make_loader(batch_size):
            yield [images], {}, labels  # forward_args, forward_kwargs, loss_target

    manager.apply(model, grad_sampler={"data_loader_builder": build, "loss_fn": cross_entropy})

``loss_function`` is another name for ``loss_fn``. Optional are ``autocast``, a dtype in which to
run the model (``torch.bfloat16`` or ``torch.float16``; by default the precision of the weights,
also when training has another), ``progress_bar`` (by default where a terminal is attached), and
``after_batch``, to be called without arguments when gradients of a batch have been sampled.

Sampling leaves no trace in the training around it: modes of submodules, buffers (statistics of
batch norms among them), random generators and ``.grad`` of the batch under way are as before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from tqdm.auto import tqdm

from sparseml.pytorch.functional.second_order.input_moments import InputMoments
from sparseml.pytorch.sparsification.pruning.sampling.given import call_builder, parts_of
from sparseml.pytorch.sparsification.pruning.sampling.held_out import (
    Batch,
    HeldOut,
    KeptOut,
    joined,
    same_batch,
)
from sparseml.pytorch.sparsification.pruning.sampling.input_capture import InputCapture
from sparseml.pytorch.sparsification.pruning.sampling.output_probe import (
    class_scores,
    probe_outputs,
)
from sparseml.pytorch.sparsification.pruning.sampling.sample_capture import Gradients, LayerCapture
from sparseml.pytorch.sparsification.pruning.sampling.shards import full_gradients
from sparseml.pytorch.sparsification.pruning.settings.processor import tell_slow_bfloat16
from sparseml.pytorch.sparsification.statistics.measuring import tunable_norms
from sparseml.pytorch.utils.distributed import any_rank, is_distributed, process_rank, world_size
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.saving.rng import OwnRandomNumbers
from sparseml.pytorch.utils.tensors.sharded import is_sharded

_LOGGER = logging.getLogger(__name__)
_MOST_SKIPPED = 0.1
_FLOAT16_SCALE = 1024.0
_END = object()


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
        convolutions, for losses that average over the batch) instead of one per batch; None for
        whichever the layers allow
    :param gradients_of: ``loss``; or ``outputs``, of their sum with random signs, see
        :mod:`~sparseml.pytorch.sparsification.pruning.sampling.output_probe`
    :raises RuntimeError: without a sampler, and for one that lacks a key or has an unknown one
    """

    def __init__(
        self,
        given: Any,
        kwargs: Mapping[str, Any],
        owner: str,
        per_sample: bool | None = False,
        gradients_of: str = "loss",
    ) -> None:
        builder, self._loss = parts_of(given, owner)
        self._owner, self._of_outputs = owner, gradients_of == "outputs"
        self._per_sample, self._tries = per_sample, per_sample is None
        self._autocast: torch.dtype | None = given.get("autocast")
        if self._autocast is torch.bfloat16 and not torch.cuda.is_available():
            tell_slow_bfloat16("gradients sampled in bfloat16 (the grad_sampler's autocast)")
        half = self._autocast is torch.float16 and not self._of_outputs  # these are large enough
        self._scale = _FLOAT16_SCALE if half else 1.0
        self._after_batch: Callable[[], None] | None = given.get("after_batch")
        show = given.get("progress_bar")
        self._hide_bar = process_rank() != 0 or (None if show is None else not show)
        self._data = SamplingData(lambda: call_builder(builder, kwargs), owner)
        self._failure, self._samples_first = "", False
        self._kept: KeptOut | None = None
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
                raise self._refusal(found, "it has none: its requires_grad is False")
        alone = not is_distributed()
        self.same_on_all_ranks = alone or any(is_sharded(found.param) for found in params)
        self._failure, share, self._samples_first = "", count, False
        if not self.same_on_all_ranks:
            share = count // world_size() + (process_rank() < count % world_size())
        return self._sampled(unwrap_module(module, root=True), params, share)

    def _sampled(
        self, bare: Module, params: Sequence[NamedLayerParam], share: int
    ) -> Iterator[Gradients]:
        taken = skipped = 0
        bar = tqdm(total=share, disable=self._hide_bar, desc=f"{self._owner}: gradients")
        with bar, undisturbed(bare), self._data.random_numbers.drawing():
            while taken < share and not self._failure:
                sampled = self._sample(bare, params, share - taken)
                for one in sampled:
                    taken += one.count
                    bar.update(one.count)
                    yield one
                if self._after_batch is not None:
                    self._after_batch()
                if sampled:
                    continue
                skipped += 1
                if skipped > _MOST_SKIPPED * share:
                    self._failure = (
                        f"{self._owner}: {skipped} batches gave gradients that are not finite, "
                        f"more than a tenth of the {share} asked for; nothing has been pruned. "
                        "Check the loss and the data of the grad_sampler, and whether the training "
                        "has diverged"
                    )
        if skipped and not self._failure:
            text = "%s: skipped %d batches with gradients that are not finite"
            _LOGGER.warning(text, self._owner, skipped)

    def watch_inputs(
        self,
        module: Module,
        params: Sequence[NamedLayerParam],
        moments: Sequence[InputMoments],
        count: int,
    ) -> None:
        """Add up the second moments of what layers are given, in forward passes alone.

        :param params: weights, and their ``moments``
        :param count: batches, of all ranks together; each rank adds up its own
        :raises RuntimeError: naming a parameter whose layer is not run
        :raises ValueError: naming one whose layer's inputs are not finite
        """
        share = count // world_size() + (process_rank() < count % world_size())
        if any(is_sharded(found.param) for found in params):
            share = -(-count // world_size())  # each forward pass takes all of them
        bare = unwrap_module(module, root=True)
        watch = InputCapture(params, moments, self._owner)
        bar = tqdm(range(share), disable=self._hide_bar, desc=f"{self._owner}: inputs")
        with watch, undisturbed(bare), self._data.random_numbers.drawing():
            for _ in bar:
                watch.run(bare, (self._kept or self._data).next_batch(), self._autocast)
        if share:
            watch.require_all()

    def keep_out(self, module: Module, gradients: int) -> list[HeldOut]:
        """Draw batches that the gradients to come are not sampled from, until the next call.

        :param gradients: how many are about to be sampled, on all ranks together
        :return: those to judge by, and more to judge again by where there are any
        :raises RuntimeError: on all ranks, where one has too few data to keep any out
        """
        share = gradients if self.same_on_all_ranks else -(-gradients // world_size())
        per_sample, told = self._per_sample is not False, self._kept is not None and self._kept.told
        self._kept, norms = KeptOut(self._data, self._owner, told), tunable_norms(module)
        with self._data.random_numbers.drawing():
            parts = self._kept.parts(share, per_sample, self._of_outputs)
        return [HeldOut(joined(part) if norms else part, self._judged, norms) for part in parts]

    def require_sound(self) -> None:
        """Raise a RuntimeError, on all ranks, if too many sampled gradients were not finite."""
        if self._kept is not None:
            self._kept.tell_if_seen()
        if any_rank(bool(self._failure)):
            raise RuntimeError(self._failure or f"{self._owner}: sampling failed on another rank")

    def progress_state(self) -> dict[str, Any]:
        """How far the data have come, and what has been found out of the model."""
        state = self._data.progress_state()
        if self._tries or self._kept is not None:  # on these depends how many are kept out
            state |= {"per_sample": self._per_sample, "same_on_all_ranks": self.same_on_all_ranks}
        return state

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`."""
        self._data.load_progress_state(state)
        self._per_sample = state.get("per_sample", self._per_sample)
        self.same_on_all_ranks = state.get("same_on_all_ranks", self.same_on_all_ranks)

    def _sample(
        self, module: Module, params: Sequence[NamedLayerParam], most: int
    ) -> list[Gradients]:
        """The gradients of the next batch, in parts; none if they are not finite."""
        batch = (self._kept or self._data).next_batch()
        if self.same_on_all_ranks and is_distributed():
            if self._per_sample:
                text = "sharded parameters have no gradient of a single sample"
                raise RuntimeError(f"{self._owner}: {text}; use fisher_samples: batch")
            whole = full_gradients(module, params, lambda: self._summed(module, batch, each=False))
            found = self._checked(params, whole)
            return [] if found is None else [found]
        loss, watch = None, None
        outputs: list[Tensor] = [found.param for found in params]
        while loss is None:
            try:
                each = self._per_sample is not False
                watch = LayerCapture(params, batch[:2], self._owner) if each else None
                with watch or nullcontext(), torch.enable_grad():
                    loss = self._summed(module, batch, each)
                if watch and not self._samples_first:
                    watch.require_samples_first(module)
                    self._samples_first = True
                outputs = watch.outputs() if watch else outputs
            except RuntimeError as error:  # noqa: PERF203  at most once
                if self._per_sample is not None:
                    raise
                _LOGGER.warning("%s; one gradient per batch is taken", error)
                loss, self._per_sample = None, False  # another fault comes again
        if not bool(loss.isfinite()):
            return []
        with torch.autocast(loss.device.type, enabled=False):  # also that of the training around
            grads = torch.autograd.grad(loss, outputs, allow_unused=True)
        found = self._checked(params, grads)
        if watch is None or found is None:
            return [] if found is None else [found]
        return watch.parts(found.of, most)

    def _summed(self, module: Module, batch: Batch, each: bool) -> Tensor:
        """What gradients are taken of, scaled: the loss, or a sum of the outputs of ``each``."""
        device, dtype = next(module.parameters()).device.type, self._autocast
        with torch.autocast(device, dtype, enabled=dtype is not None):
            output = module(*batch[0], **batch[1])
            if not self._of_outputs:  # a named tuple is a model's own kind of output
                first = output[0] if type(output) is tuple else output
                return self._loss(first, batch[2]) * self._scale
            seed = *self._data.place(), process_rank()
            shards = world_size() if self.same_on_all_ranks and is_distributed() else 1
            scale = self._scale * shards**0.5  # as means over ranks are smaller by that
            return probe_outputs(output, batch, each, seed) * scale

    def _judged(self, module: Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The loss of a batch, and where gradients are of the outputs the scores of classes."""
        device, dtype = next(module.parameters()).device.type, self._autocast
        with torch.autocast(device, dtype, enabled=dtype is not None):
            output = module(*batch[0], **batch[1])
            loss = self._loss(output[0] if type(output) is tuple else output, batch[2])
        return loss, class_scores(output, batch) if self._of_outputs else None

    def _checked(
        self, params: Sequence[NamedLayerParam], grads: Sequence[Tensor | None]
    ) -> Gradients | None:
        """One gradient for each parameter, or None if they are not finite."""
        finite: dict[torch.device, list[Tensor]] = {}
        complete: list[Tensor] = []
        for found, grad in zip(params, grads, strict=True):
            if grad is None:
                of = "output of the model" if self._of_outputs else "loss of the grad_sampler"
                raise self._refusal(found, f"the {of} does not depend on it")
            complete.append(grad if self._scale == 1.0 else grad / self._scale)
            finite.setdefault(grad.device, []).append(complete[-1].isfinite().all())
        # one answer per device, so that a GPU is waited for once
        if not all(bool(torch.stack(one).all()) for one in finite.values()):
            return None
        return Gradients(1, lambda index: complete[index].unsqueeze(0))

    def _refusal(self, found: NamedLayerParam, why: str) -> RuntimeError:
        return RuntimeError(f"{self._owner} prunes {found.name} by its gradients, but {why}")


class SamplingData:
    """An endless stream of batches that goes on where it stopped, also in a resumed run.

    When its batches are used up the loader is gone through again; an iterator is built anew. Each
    round draws random numbers of its own, by the seed of this process, its rank and the number of
    the round. So a resumed run repeats a round and skips what has been drawn of it.

    :param build: returns the loader: an iterable of batches, or a callable that returns one. If it
        has ``state_dict`` and ``load_state_dict``, its state at the beginning of a round is kept
    :param owner: for messages
    """

    def __init__(self, build: Callable[[], Any], owner: str) -> None:
        self._build, self._owner = build, owner
        self._seed = torch.initial_seed()
        self._loader: Any = build()
        self._loader_state: Any = None
        self._batches: Iterator[Any] | None = None
        self.rounds = self.drawn = self._to_skip = 0
        self._used = self._warned = False
        self.in_order = True  # whether the rounds seen have begun alike
        self._first: Any = None
        self.random_numbers = OwnRandomNumbers()

    def __getstate__(self) -> dict[str, Any]:
        # a copy opens the data again, and skips what has been drawn
        state = {**vars(self), "_first": None}
        if isinstance(self._loader, Iterator):
            state.update(_loader=None, _used=False)
        if self._batches is not None:
            state.update(_batches=None, rounds=self.rounds - 1, _to_skip=self.drawn, drawn=0)
        return state

    def next_batch(self) -> Any:
        """Return the next batch, within ``random_numbers.drawing()``; a RuntimeError for none."""
        batch: Any = next(self._begin() if self._batches is None else self._batches, _END)
        if batch is _END:
            if self.drawn and not self._warned:
                text = "%s: the data of the grad_sampler ended after %d batches and are repeated; "
                text += "give more data, or ask for fewer gradients (num_grads)"
                _LOGGER.warning(text, self._owner, self.drawn)
                self._warned = True
            batch = next(self._begin(), _END)
        if batch is _END:
            raise RuntimeError(f"{self._owner}: the data_loader_builder's loader has no batches")
        self.drawn += 1
        if self.drawn == 1:
            self.in_order = self._first is None or same_batch(self._first, batch)
            self._first = batch
        return batch

    def place(self) -> tuple[int, int, int]:
        """Return what tells the last batch from all others, of runs of other seeds also."""
        return self._seed % 2**64, self.rounds, self.drawn

    def progress_state(self) -> dict[str, Any]:
        """Return how far the stream has come."""
        opened = self._batches is not None
        return {
            "seed": self._seed,
            "rounds": self.rounds - opened,
            "drawn": self.drawn if opened else self._to_skip,
            "loader": self._loader_state,
        }

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`; the batches are skipped when the next one is drawn."""
        self._seed, self.rounds = state["seed"], state["rounds"]
        self._to_skip, self._loader_state = state["drawn"], state["loader"]
        self._batches, self.random_numbers = None, OwnRandomNumbers()
        if self._loader_state is not None and hasattr(self._loader, "load_state_dict"):
            self._loader.load_state_dict(self._loader_state)

    def _begin(self) -> Iterator[Any]:
        self.random_numbers.begin(self._seed % 2**64, process_rank(), self.rounds)
        if self._loader is None or (self._used and isinstance(self._loader, Iterator)):
            self._loader = self._build()
        if hasattr(self._loader, "load_state_dict") and hasattr(self._loader, "state_dict"):
            self._loader_state = self._loader.state_dict()
        source: Any = self._loader
        if not isinstance(source, Iterable) and callable(source):
            source = source()
        self._batches, self._used = iter(source), True
        self.rounds += 1
        self.drawn, self._to_skip = self._to_skip, 0
        for _ in range(self.drawn):
            next(self._batches, _END)
        return self._batches
