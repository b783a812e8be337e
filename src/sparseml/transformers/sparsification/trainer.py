"""A ``transformers.Trainer`` that takes a recipe, with the arguments of SparseML 1.x."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import TrainOutput, get_last_checkpoint

from sparseml.transformers.sparsification.interface import RecipeManagerTrainerInterface
from sparseml.transformers.structure import RECIPE_NAME

__all__ = [
    "RECIPE_NAME",
    "DisableHalfPrecisionCallback",
    "RecipeManagerTrainerInterface",
    "Trainer",
    "TrainerInterface",
    "TrainingArguments",
    "TransformersTrainer",
]

_LOGGER = logging.getLogger(__name__)


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """The arguments of transformers, and those of a recipe.

    :param distill_teacher: the model to distil from: a folder, ``"self"`` or ``"disable"``; for the
        script, which loads it and hands it to the Trainer
    :param best_model_after_epoch: until then no model counts as the best one
    :param recipe: a file, or the text of a recipe
    :param recipe_args: values for variables of the recipe, as JSON or ``name=value,...``
    """

    distill_teacher: str | None = field(
        default=None,
        metadata={"help": "Model to distil from: a folder, 'self' or 'disable'."},
    )
    best_model_after_epoch: int | None = field(
        default=None,
        metadata={"help": "Epoch from whose end on a model may be the best one."},
    )
    recipe: str | None = field(
        default=None, metadata={"help": "Recipe of the run: a file, or the text of one."}
    )
    recipe_args: str | None = field(
        default=None,
        metadata={"help": "Values for variables of the recipe, as JSON or name=value,..."},
    )


class TrainerInterface(RecipeManagerTrainerInterface):
    """Training, evaluation and prediction with a recipe; a mixin, to be named before the Trainer.

    Its arguments are those of :class:`RecipeManagerTrainerInterface`.
    """

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train by the recipe, or apply it at once in a one-shot run, which trains nothing.

        :param args: for the Trainer's ``train``; of a checkpoint to go on from, the recipe does so
            too
        :return: what the Trainer's ``train`` does
        """
        if self.one_shot:
            self.apply_manager(epoch=math.inf)
            self.log_model_sparsification()
            return TrainOutput(0, 0.0, {})
        folder = self._checkpoint(kwargs.get("resume_from_checkpoint", args[0] if args else None))
        self.begin_anew()
        self._resumes_from, self.manager_applied = folder, False
        self._resumes_at = 0.0 if folder is None else _epoch_of(folder)
        self.apply_manager(self._resumes_at, folder)
        self.callback_handler.train_dataloader = None
        found = super().train(*args, **kwargs)
        self.finalize_manager()
        self.log_model_sparsification()
        return found

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the model; before any training, with the structure at the recipe's end."""
        applied = self.apply_manager(epoch=math.inf)
        found = super().evaluate(*args, **kwargs)
        if applied:
            self.finalize_manager()
        return found

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict; before any training, with the structure at the recipe's end."""
        applied = self.apply_manager(epoch=math.inf)
        found = super().predict(*args, **kwargs)
        if applied:
            self.finalize_manager()
        return found

    def _checkpoint(self, given: Any) -> str | None:
        if not given:
            return None
        if given is not True:
            return os.fspath(given)
        folder: str | None = get_last_checkpoint(self.args.output_dir)
        return folder


def _epoch_of(folder: str) -> float:
    file = Path(folder) / "trainer_state.json"
    return TrainerState.load_from_json(str(file)).epoch or 0.0 if file.is_file() else 0.0


class TransformersTrainer(transformers.Trainer):
    """The Trainer of transformers, with what SparseML 1.x adds to its checkpoints.

    ``args.best_model_after_epoch`` is the epoch until whose end no model counts as the best.
    """

    def save_optimizer_and_scheduler(self, output_dir: str | None = None) -> None:
        """Save the states of optimizer and scheduler, as checkpoints have them."""
        self._save_optimizer_and_scheduler(
            self.args.output_dir if output_dir is None else output_dir
        )

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        least = getattr(self.args, "best_model_after_epoch", None)
        if least is not None and (self.state.epoch or 0.0) < least:
            return False
        return bool(super()._determine_best_metric(metrics=metrics, trial=trial))


class Trainer(TrainerInterface, TransformersTrainer):
    """The Trainer of transformers with a recipe.

    | Sample use:
    |   trainer = Trainer(
    |       model=model,
    |       model_state_path="folder_of_the_model",
    |       recipe="recipe.yaml",
    |       teacher=teacher,
    |       args=TrainingArguments(output_dir="out"),
    |       train_dataset=data,
    |   )
    |   trainer.train()
    |   trainer.save_model()

    Its arguments are those of :class:`RecipeManagerTrainerInterface`, and by keyword those of
    ``transformers.Trainer``.
    """


class DisableHalfPrecisionCallback(TrainerCallback):
    """Trains in full precision once the recipe quantizes.

    :param trainer: with a recipe; give it this callback by ``trainer.add_callback``
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.quant_start_epoch = math.inf
        """The epoch in which that began; infinite before."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Turn mixed precision off, if quantization is active in this epoch."""
        epoch, manager = state.epoch or 0.0, self.trainer.manager
        if (
            manager is None
            or not math.isinf(self.quant_start_epoch)
            or not manager.qat_active(epoch)
        ):
            return
        self.quant_start_epoch = epoch
        accelerator = self.trainer.accelerator
        if accelerator.mixed_precision == "no":
            return
        # its forward runs under autocast only in what accelerate has put around it
        accelerator.unwrap_model(self.trainer.model_wrapped, keep_fp32_wrapper=False)
        accelerator.state._mixed_precision = "no"
        _LOGGER.info("epoch %g: half precision is turned off, the recipe quantizes", epoch)
