"""The training loop of the GLUE scripts, with batches that accelerate shares among processes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import get_scheduler
from transformers.trainer_pt_utils import get_length_grouped_indices

from no_trainer.session import GlueSession
from no_trainer.settings import ScriptSettings, TrainingGroup
from sparseml.pytorch.optim import StepDriver
from sparseml.report import RunDirectory
from sparseml.run import (
    RunError,
    epochs_to_run,
    load_recipe,
    masks_in_force,
    require_fitting_patterns,
    require_fitting_schedule,
    say,
)
from sparseml.run.loop import steps_in_epoch
from sparseml.run.precision import gradient_scaler
from sparseml.run.session import Found, LogStep
from sparseml.transformers.inputs import Batch
from sparseml.transformers.scripts import sparsity_ratios
from sparseml.transformers.settings import ModelSettings, OptimizerSettings, TrainingSettings
from sparseml.transformers.training import TextTraining, freeze_unreached

_PRUNING_BETAS = (0.9, 0.9)
_BETAS = (0.9, 0.999)


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
class GlueTraining(TextTraining):
    """Trains a classifier epoch by epoch.

    :param order: of the texts
    :param most_steps: after which training ends
    :param folder: of the run
    """

    order: EpochOrder = field(kw_only=True)
    most_steps: int = field(kw_only=True)
    folder: Path = field(kw_only=True)

    def epoch(self, number: int, name: str) -> Found:
        """Train one epoch, in its own order of texts."""
        self.order.set_epoch(number)
        self.loader.set_epoch(number)  # accelerate counts epochs, too, from 0 also after resuming
        return super().epoch(number, name)

    def after_epoch(self, number: int, found: Found) -> None:
        """Tell, after the last epoch, how sparse the model is by the definition of Intel's pruner.

        It counts zeros of masks among the weights of all linear and convolutional layers.
        """
        if number + 1 == self.epochs and self.session.where.is_first:
            told = _ratio(self.session.model, masks_in_force(self.manager))
            say(told)
            RunDirectory(self.folder).write_result(notes=[told])

    def _groups(self, batches: Iterator[Any]) -> Iterator[list[Batch]]:
        return itertools.islice(super()._groups(batches), self.most_steps - self.steps)


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
    steps = steps_in_epoch(len(loader), chosen.gradient_accumulation_steps)
    manager.resolve_steps(steps)
    asked = chosen.num_train_epochs
    if chosen.max_train_steps is not None:
        asked = math.ceil(chosen.max_train_steps / steps)
    insists = bool({"num_train_epochs", "max_train_steps"} & settings.given)
    epochs = epochs_to_run(manager, asked, insists, run.sparseml_recipe, "--num-train-epochs")
    most_steps = min(chosen.max_train_steps or epochs * steps, epochs * steps)
    require_fitting_schedule(manager, steps, epochs, run.sparseml_recipe)
    distils = bool(manager.distillation_modifiers)
    if session.teacher is None and distils:
        raise RunError(
            f"{run.sparseml_recipe} distils: name the teacher by --teacher-model-name-or-path"
        )
    freeze_unreached(session.model, manager, session.sample_inputs())
    optimizer = _adamw(session, chosen, bool(manager.pruning_modifiers))
    scheduler = None
    if not manager.learning_rate_modifiers:
        kind, warmup = chosen.lr_scheduler_type, chosen.num_warmup_steps
        scheduler = get_scheduler(kind, optimizer, warmup, most_steps)
    model = where.share(session.model)
    manager.initialize(
        model,
        loggers=loggers,
        distillation_teacher=session.teacher or "disable",
        grad_sampler=session.grad_sampler(),
        steps_per_epoch=steps,
    )
    return GlueTraining(
        session=session,
        settings=_as_read_by_the_loop(settings),
        loader=loader,
        epochs=epochs,
        steps_per_epoch=steps,
        model=model,
        manager=manager,
        driver=StepDriver(model, optimizer, manager, steps),
        optimizer=optimizer,
        scaler=gradient_scaler(run, where),
        scheduler=scheduler,
        log=log,
        order=order,
        most_steps=most_steps,
        folder=folder,
    )


def _adamw(session: GlueSession, chosen: TrainingGroup, prunes: bool) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        _param_groups(session.model, chosen.weight_decay),
        lr=chosen.learning_rate,
        betas=_PRUNING_BETAS if prunes else _BETAS,
        # on a CPU it takes a ninth of the time
        fused=session.where.device.type in ("cpu", "cuda"),
    )


def _as_read_by_the_loop(settings: ScriptSettings) -> TrainingSettings:
    accumulated = settings.training.gradient_accumulation_steps
    return TrainingSettings(
        model=ModelSettings(model=settings.model.model_name_or_path),
        run=settings.run,
        optimizer=OptimizerSettings(grad_accum_steps=accumulated, clip_grad=0.0),
        checkpoints=settings.checkpoints,
    )


def _loader(session: GlueSession, settings: ScriptSettings) -> tuple[EpochOrder, Any]:
    """Return the order of texts, and a loader of batches, each process its own.

    Where the texts do not make whole batches for all processes accelerate takes some twice.
    """
    rows, size = session.inputs.train, settings.data.per_device_train_batch_size
    lengths = session.inputs.lengths() if settings.data.group_by_length else None
    order = EpochOrder(len(rows), size * session.where.count, settings.run.seed, lengths)
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


def _ratio(model: nn.Module, masks: dict[str, Any]) -> str:
    found = sparsity_ratios(model, sum(int((mask == 0).sum()) for mask in masks.values()))
    return (
        f"element-wise/matmul, Gemm, conv ratio: {found.of_matmul:.4f} ({found.zeros:,} of "
        f"{found.matmul:,} weights); of all parameters {found.of_all:.4f}"
    )
