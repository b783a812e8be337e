"""What is the same in training an epoch, whoever trains."""

from __future__ import annotations

import contextlib
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sparseml.pytorch.utils.optimizers import get_optim_learning_rate
from sparseml.pytorch.utils.saving.rng import get_rng_state, set_rng_state
from sparseml.run.errors import RunError, Stopped, stopping_between_steps
from sparseml.run.masks import masked_sparsity
from sparseml.run.processes import require_all_used
from sparseml.run.progress import shown_progress
from sparseml.run.session import Found, LogStep


def steps_in_epoch(batches: int, accumulated: int) -> int:
    """Return the optimizer steps of an epoch; the batches that are left over make one more."""
    return -(-batches // accumulated)


class EpochLoop(ABC):
    """Trains an epoch group by group of batches, each of which makes one optimizer step.

    :cvar UNIT: what is trained on, for the name of how many there are a second
    :cvar ADVICE: what else to try when the loss is not finite, after a lower learning rate
    :ivar loader: yields batches
    :ivar scaler: of gradients in float16, if they need one
    :ivar log: told of every ``--log-interval``-th step: its number and what to log
    :ivar begun: of an epoch that was stopped in its middle, what it takes to go on with it
    """

    UNIT: ClassVar[str]
    ADVICE: ClassVar[str] = ""

    session: Any
    settings: Any
    loader: Any
    steps_per_epoch: int
    model: nn.Module
    manager: Any
    scaler: Any
    log: LogStep
    begun: dict[str, Any] | None = None

    @property
    @abstractmethod
    def stepping(self) -> Optimizer:
        """Return the optimizer itself, without what a manager has put around it."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Return how many steps were taken; those that a gradient scaler left out are none."""

    @abstractmethod
    def step(self, group: list[Any]) -> float:
        """Take one optimizer step on a group of batches, and return their mean loss."""

    @abstractmethod
    def _loss(self, inputs: Any, labels: Tensor) -> Tensor:
        """Return the loss of a batch, as the recipe changes it."""

    @abstractmethod
    def _on_device(self, batch: Any) -> tuple[Any, Tensor]:
        """Return inputs and labels of a batch, ready for the model."""

    def epoch(self, number: int, name: str) -> Found:
        """Train one epoch, or what is left of the one that :attr:`begun` tells of.

        :param number: from 0
        :param name: of the bar that shows how far this is
        :return: mean loss, learning rate at the end, sparsity, and units per second
        :raises Stopped: between two steps, if a signal asks for it; :attr:`begun` is set then
        """
        begun, rng = self.begun, get_rng_state()
        total, seen, first, sparsity = 0.0, 0, 0, masked_sparsity(self.manager)
        if begun is not None:  # the same batches in the same order
            rng, after, self.begun = begun["rng"], rng, None
            total, seen, first = begun["total"], begun["seen"], begun["steps"]
            sparsity = begun["sparsity"]
            set_rng_state(rng)
        self._begin_epoch(number)
        batches = iter(self.loader)
        for _ in itertools.islice(batches, first * self.settings.optimizer.grad_accum_steps):
            pass
        if begun is not None:
            set_rng_state(after)
        was, began = seen, time.monotonic()
        where, count = self.session.where, self.steps_per_epoch
        with (
            shown_progress(name, count, where.is_first) as advance,
            stopping_between_steps() as asked,
        ):
            for step, group in enumerate(self._groups(batches), start=first + 1):
                loss = self.step(group)
                size = sum(len(labels) for _, labels in group)
                total, seen = total + loss * size, seen + size
                advance(step, f"loss {loss:.4g}")
                if step % self.settings.checkpoints.log_interval == 0 or step == count:
                    rate = get_optim_learning_rate(self.stepping)
                    self.log(max(0, self.steps - 1), {"loss": loss, "lr": rate})
                if signal := where.largest(asked()):
                    self.begun = {"steps": step, "total": total, "seen": seen, "rng": rng}
                    self.begun["sparsity"] = sparsity
                    raise Stopped(signal)
        seconds = time.monotonic() - began
        total, seen_in_all, seen_now = where.sum([total, float(seen), float(seen - was)])
        return {
            "loss": total / max(seen_in_all, 1.0),
            "lr": get_optim_learning_rate(self.stepping),
            "sparsity": masked_sparsity(self.manager),
            f"{self.UNIT}_per_second": seen_now / max(seconds, 1e-9),
        }

    def _begin_epoch(self, number: int) -> None:
        self.model.train()
        sampler: Any = getattr(self.loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(number)

    def _groups(self, batches: Iterator[Any]) -> Iterator[list[tuple[Any, Tensor]]]:
        count = self.settings.optimizer.grad_accum_steps
        while group := list(itertools.islice(batches, count)):
            yield [self._on_device(batch) for batch in group]

    def _backward(self, group: list[Any]) -> float:
        """Add up the gradients of a group, and return its mean loss.

        :raises RunError: if that is not finite, and no scaler is there to leave the step out; for
            a parameter without a gradient, if there are several processes
        """
        total = 0.0
        model: Any = self.model
        shared = isinstance(model, DistributedDataParallel)
        for number, (inputs, labels) in enumerate(group, start=1):
            last = number == len(group)
            with model.no_sync() if shared and not last else contextlib.nullcontext():
                loss = self._loss(inputs, labels) / len(group)
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            total += float(loss.detach())
        if shared:
            require_all_used(model)
        if self.scaler is None and not torch.isfinite(torch.tensor(total)):
            raise RunError(
                f"the loss is {total} at step {self.steps}: lower the learning rate "
                f"({get_optim_learning_rate(self.stepping):g}){self.ADVICE}"
            )
        return total
