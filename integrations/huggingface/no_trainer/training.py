"""The training loop of the GLUE scripts: accelerate's parts, and a driver that prunes."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler
from transformers import get_scheduler
from transformers.trainer_pt_utils import get_length_grouped_indices

from no_trainer.session import GlueSession
from no_trainer.settings import ScriptSettings
from sparseml.pytorch.optim.step_driver import StepDriver
from sparseml.pytorch.utils.optimizers import get_optim_learning_rate
from sparseml.pytorch.utils.tensors.nested import tensors_on
from sparseml.report import RunDirectory
from sparseml.run import (
    RunError,
    epochs_to_run,
    load_recipe,
    masked_sparsity,
    masks_in_force,
    require_fitting_patterns,
    require_fitting_schedule,
    say,
    shown_progress,
)
from sparseml.run.precision import autocast_of, gradient_scaler
from sparseml.run.session import Found, LogStep

_PRUNING_BETAS = (0.9, 0.9)


class EpochOrder(Sampler[int]):
    """A random order of the texts, another in each epoch, the same in every process.

    :param lengths: of the texts, to put those of like length into a batch; None for any order
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, lengths: Sequence[int] | None = None
    ) -> None:
        self._count, self._batch_size, self._lengths = count, batch_size, lengths
        self._seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Go to the order of an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        if self._lengths is not None:
            lengths = list(self._lengths)
            return iter(get_length_grouped_indices(lengths, self._batch_size, generator=generator))
        return iter(torch.randperm(self._count, generator=generator).tolist())

    def __len__(self) -> int:
        return self._count


@dataclass
class GlueTraining:
    """Trains a classifier epoch by epoch.

    :param optimizer: accelerate's, around ``inner``
    :param scheduler: of Transformers, None where the recipe sets the learning rate
    :param most_steps: after which training ends
    :param log: told of every ``--log-interval``-th step
    :param folder: of the run
    """

    session: GlueSession
    settings: ScriptSettings
    loader: Any
    order: EpochOrder
    epochs: int
    steps_per_epoch: int
    model: nn.Module
    manager: Any
    driver: StepDriver
    optimizer: Any
    inner: torch.optim.Optimizer
    scheduler: Any
    scaler: Any
    most_steps: int
    log: LogStep
    folder: Path

    averaged = None

    @property
    def steps(self) -> int:
        """Return how many steps were taken; those that a gradient scaler left out are none."""
        return self.driver.position.steps

    @property
    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the model."""
        parts = {"optimizer": self.inner, "manager": self.manager}
        return {**parts, "scheduler": self.scheduler, "scaler": self.scaler}

    def epoch(self, number: int, name: str) -> Found:
        """Train one epoch: mean loss, rate at the end, sparsity, texts per second."""
        where, interval = self.session.where, self.settings.checkpoints.log_interval
        self.order.set_epoch(number)
        self.model.train()
        total, texts, began = 0.0, 0, time.monotonic()
        count = min(self.steps_per_epoch, self.most_steps - number * self.steps_per_epoch)
        groups = itertools.islice(self._groups(), count)
        with shown_progress(name, count, where.is_first) as advance:
            for step, group in enumerate(groups, start=1):
                loss = self._step(group)
                size = sum(len(labels) for _, labels in group)
                total, texts = total + loss * size, texts + size
                advance(step, f"loss {loss:.4g}")
                if step % interval == 0 or step == count:
                    rate = get_optim_learning_rate(self.inner)
                    self.log(max(0, self.steps - 1), {"loss": loss, "lr": rate})
        seconds = time.monotonic() - began
        total, texts_in_all = where.sum([total, float(texts)])
        return {
            "loss": total / max(texts_in_all, 1.0),
            "lr": get_optim_learning_rate(self.inner),
            "sparsity": masked_sparsity(self.manager),
            "texts_per_second": texts_in_all / max(seconds, 1e-9),
        }

    def after_epoch(self, number: int, found: Found) -> None:
        """Tell, after the last epoch, how sparse the model is by the definition of Intel's pruner.

        It counts zeros of masks among the weights of all linear and convolutional layers.
        """
        if number + 1 < self.epochs or not self.session.where.is_first:
            return
        for line in (lines := list(_ratios(self.session.model, masks_in_force(self.manager)))):
            say(line)
        RunDirectory(self.folder).write_result(notes=lines)

    def skip_to(self, epoch: int, found: Found) -> None:
        """Go to the learning rate of an epoch, in a run whose optimizer begins anew."""
        for _ in range(self.steps if self.scheduler is not None else 0):
            self.scheduler.step()

    def _groups(self) -> Iterator[list[Any]]:
        batches, count = iter(self.loader), self.settings.training.gradient_accumulation_steps
        while group := list(itertools.islice(batches, count)):
            device = self.session.where.device
            yield [(tensors_on(inputs, device), labels.to(device)) for inputs, labels in group]

    def _step(self, group: list[Any]) -> float:
        """Take one optimizer step on a group of batches, and return their mean loss."""
        self.optimizer.zero_grad()
        total, shared = 0.0, isinstance(self.model, DistributedDataParallel)
        for number, (inputs, labels) in enumerate(group, start=1):
            waits: Any = self.model.no_sync if shared and number < len(group) else nullcontext
            with waits():
                loss = self._loss(inputs, labels) / len(group)
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            total += float(loss.detach())
        if self.scaler is None and not torch.isfinite(torch.tensor(total)):
            raise RunError(
                f"the loss is {total} at step {self.steps}: lower --learning-rate "
                f"({get_optim_learning_rate(self.inner):g})"
            )
        if self.scaler is not None:  # scores are made of gradients
            self.scaler.unscale_(self.inner)
        before = self.steps
        self.driver.before_step()
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.inner)
            self.scaler.update()
        self.driver.after_step()
        if self.scheduler is not None and self.steps > before:
            self.scheduler.step()
        return total

    def _loss(self, inputs: dict[str, Any], labels: Any) -> torch.Tensor:
        with autocast_of(self.session.run, self.session.where)():
            output = self.model(**inputs)
            loss = self.session.inputs.loss(output, labels)
        return self.driver.loss_update(
            loss, student_outputs=output, student_inputs=inputs, student_labels=labels
        )


def set_up_training(
    session: GlueSession, settings: ScriptSettings, loggers: list[Any], log: LogStep, folder: Path
) -> GlueTraining:
    """Check that recipe, model and run fit, and build all that training takes.

    :raises RunError: for what does not fit, before anything is computed
    """
    run, chosen, where = settings.run, settings.training, session.where
    manager = load_recipe(run.sparseml_recipe, run.recipe_args)
    require_fitting_patterns(manager, session.model, run.sparseml_recipe)
    order, loader = _loader(session, settings)
    steps = -(-len(loader) // chosen.gradient_accumulation_steps)
    manager.resolve_steps(steps)
    asked = chosen.num_train_epochs
    if chosen.max_train_steps is not None:
        asked = -(-chosen.max_train_steps // steps)
    insists = bool({"num_train_epochs", "max_train_steps"} & settings.given)
    epochs = epochs_to_run(manager, asked, insists, run.sparseml_recipe, "--num-train-epochs")
    most_steps = min(chosen.max_train_steps or epochs * steps, epochs * steps)
    require_fitting_schedule(manager, steps, epochs, run.sparseml_recipe)
    if session.teacher is None and manager.distillation_modifiers:
        raise RunError(
            f"{run.sparseml_recipe} distils: name the teacher by --teacher-model-name-or-path"
        )
    betas = _PRUNING_BETAS if manager.pruning_modifiers else (0.9, 0.999)
    inner = torch.optim.AdamW(
        _param_groups(session.model, chosen.weight_decay),
        lr=chosen.learning_rate,
        betas=betas,
        fused=where.device.type in ("cpu", "cuda"),  # on a CPU it takes a ninth of the time
    )
    scheduler = None
    if not manager.learning_rate_modifiers:
        scheduler = get_scheduler(
            chosen.lr_scheduler_type, inner, chosen.num_warmup_steps, most_steps
        )
    # no gradient reaches a head whose loss is replaced
    unused = bool(manager.distillation_modifiers)
    model = where.share(session.model, find_unused_parameters=unused)
    manager.initialize(
        model,
        loggers=loggers,
        distillation_teacher=session.teacher or "disable",
        grad_sampler=session.grad_sampler(),
    )
    optimizer = session.accelerator.prepare_optimizer(inner)
    driver = StepDriver(model, inner, manager, steps)
    return GlueTraining(
        session, settings, loader, order, epochs, steps, model, manager, driver, optimizer, inner,
        scheduler, gradient_scaler(run, where), most_steps, log, folder,
    )  # fmt: skip


def _loader(session: GlueSession, settings: ScriptSettings) -> tuple[EpochOrder, Any]:
    """Return the order of texts, and a loader of batches, each process its own.

    Where the texts do not make whole batches for all processes accelerate takes some twice.
    """
    rows, size = session.inputs.train, settings.data.per_device_train_batch_size
    lengths = session.inputs.lengths() if settings.data.group_by_length else None
    whole = size * session.where.count
    order = EpochOrder(len(rows), whole, settings.run.seed, lengths)
    collate: Any = session.inputs.collate
    loader: Any = DataLoader(rows, size, sampler=order, collate_fn=collate)
    return order, session.accelerator.prepare_data_loader(loader, device_placement=False)


def _param_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return the parameters with weight decay, and those without: biases and layer norms.

    The classifier is among the former: in Intel's script it was in no group, and stayed random.
    """
    norms = {
        id(param)
        for layer in model.modules()
        if isinstance(layer, nn.LayerNorm)
        for param in layer.parameters()
    }
    with_decay, without = [], []
    for name, param in model.named_parameters():
        plain = name.endswith("bias") or "LayerNorm.weight" in name or id(param) in norms
        (without if plain else with_decay).append(param)
    groups = [{"params": with_decay, "weight_decay": decay}]
    return [*groups, {"params": without, "weight_decay": 0.0}]


def _ratios(model: nn.Module, masks: dict[str, Any]) -> Iterator[str]:
    kinds = [layer for layer in model.modules() if _is_counted(layer)]
    counted = sum(layer.weight.numel() for layer in kinds)
    zeros = sum(int((mask == 0).sum()) for mask in masks.values())
    everything = sum(param.numel() for param in model.parameters())
    yield (
        f"element-wise/matmul, Gemm, conv ratio: {zeros / max(counted, 1):.4f} ({zeros:,} of "
        f"{counted:,}); of all parameters {zeros / everything:.4f}"
    )


def _is_counted(layer: nn.Module) -> bool:
    name = type(layer).__name__
    return name == "Linear" or re.search("Conv.d", name) is not None
