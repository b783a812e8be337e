"""The training loop: timm's parts, with a manager that prunes at every optimizer step."""

from __future__ import annotations

import contextlib
import itertools
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.utils import dispatch_clip_grad
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel

from sparseml.pytorch.utils.optimizers import get_optim_learning_rate
from sparseml.run.batch_norm import frozen_statistics
from sparseml.run.errors import RunError
from sparseml.run.masks import masked_sparsity
from sparseml.run.processes import Processes
from sparseml.run.progress import shown_progress
from sparseml.run.sam import SharpnessAware
from sparseml.timm.ema import MaskedEma
from sparseml.timm.losses import Distillation

__all__ = ["Trainer", "steps_in_epoch"]

_Group = list[tuple[Tensor, Tensor]]


def steps_in_epoch(batches: int, accumulated: int) -> int:
    """Optimizer steps of an epoch; the batches that are left over make one more."""
    return -(-batches // accumulated)


@dataclass
class Trainer:
    """Trains a model epoch by epoch.

    :param optimizer: what ``manager.modify`` returned
    :param inner: the optimizer itself
    :param scaler: the gradient scaler inside ``optimizer``, if any
    :param scheduler: of timm, None where the recipe sets the learning rate
    :param log: told of every ``args.log_interval``-th step: its number and what to log
    """

    args: Namespace
    where: Processes
    model: nn.Module
    manager: Any
    optimizer: Any
    inner: torch.optim.Optimizer
    loss: nn.Module
    autocast: Callable[[], Any]
    scaler: Any = None
    scheduler: Any = None
    mixup: Any = None
    distillation: Distillation | None = None
    sam: SharpnessAware | None = None
    ema: MaskedEma | None = None
    log: Callable[[int, dict[str, float]], None] = lambda step, values: None

    @property
    def steps(self) -> int:
        """Optimizer steps taken; those that a gradient scaler left out are none."""
        return int(self.optimizer.wrapped_steps)

    @property
    def last_step(self) -> int:
        """The number of the last step taken, from 0; what a resumed run takes next comes after."""
        return max(0, self.steps - 1)

    def epoch(self, number: int, loader: Any, name: str) -> dict[str, float]:
        """Train one epoch.

        :param number: from 0
        :return: mean loss, learning rate at the end, images per second and sparsity
        """
        self._begin_epoch(number, loader)
        total, images, began = 0.0, 0, time.monotonic()
        count = steps_in_epoch(len(loader), self.args.grad_accum_steps)
        with shown_progress(name, count, self.where.is_first) as advance:
            for step, group in enumerate(self._groups(loader), start=1):
                loss = self.step(group)
                size = sum(len(labels) for _, labels in group)
                total, images = total + loss * size, images + size
                news = f"loss {loss:.4g}"
                advance(step, news)
                if step % self.args.log_interval == 0 or step == count:
                    rate = get_optim_learning_rate(self.inner)
                    self.log(self.last_step, {"loss": loss, "lr": rate})
        seconds = time.monotonic() - began
        total, images_in_all = self.where.sum([total, float(images)])
        return {
            "loss": total / max(images_in_all, 1.0),
            "lr": get_optim_learning_rate(self.inner),
            "images_per_second": images_in_all / max(seconds, 1e-9),
            "sparsity": masked_sparsity(self.manager),
        }

    def step(self, group: _Group) -> float:
        """One optimizer step on a group of batches; returns their mean loss."""
        self.inner.zero_grad(set_to_none=True)
        loss = self._backward(group)
        if self.sam is not None:
            with frozen_statistics(self.model):
                params = (p for entry in self.inner.param_groups for p in entry["params"])
                self.sam.replace_gradients(params, lambda: self._backward(group))
        self._clip()
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.optimizer.step(self.inner)
            self.optimizer.update()
        if self.ema is not None:
            self.ema.update_masked(self.model, self.manager, self.steps)
        if self.scheduler is not None:
            self.scheduler.step_update(num_updates=self.steps)
        return loss

    def _begin_epoch(self, number: int, loader: Any) -> None:
        self.model.train()
        sampler: Any = getattr(loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(number)
        off = self.args.mixup_off_epoch
        if self.mixup is not None and off and number >= off:
            self.mixup.mixup_enabled = False

    def _groups(self, loader: Iterable[Any]) -> Iterator[_Group]:
        batches = iter(loader)
        while group := list(itertools.islice(batches, self.args.grad_accum_steps)):
            yield [self._prepared(*batch[:2]) for batch in group]

    def _prepared(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images = images.to(self.where.device, non_blocking=True)
        labels = labels.to(self.where.device, non_blocking=True)
        if self.args.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.mixup(images, labels) if self.mixup is not None else (images, labels)

    def _backward(self, group: _Group) -> float:
        total = 0.0
        for number, (images, labels) in enumerate(group, start=1):
            with self._synchronised(number == len(group)):
                loss = self._loss(images, labels) / len(group)
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            total += float(loss.detach())
        if self.scaler is None and not torch.isfinite(torch.tensor(total)):
            raise RunError(
                f"the loss is {total} at step {self.steps}: lower the learning rate "
                f"({get_optim_learning_rate(self.inner):g}) or clip gradients (--clip-grad)"
            )
        return total

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with self.autocast():
            logits = self.model(images)
            loss = self.loss(logits, labels)
        if self.distillation is not None:
            loss = self.distillation(loss, images, logits, self.autocast)
        return self.manager.loss_update(
            loss,
            self.model,
            self.inner,
            self.optimizer.wrapped_epoch,
            self.optimizer.wrapped_steps_per_epoch,
            student_outputs=logits,
            student_inputs=images,
            student_labels=labels,
        )

    def _synchronised(self, last: bool) -> Any:
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _clip(self) -> None:
        if self.args.clip_grad is None:
            return
        if self.scaler is not None:
            self.scaler.unscale_(self.inner)
        held: list[Parameter] = [p for p in self.model.parameters() if p.grad is not None]
        dispatch_clip_grad(held, value=self.args.clip_grad, mode=self.args.clip_mode)
