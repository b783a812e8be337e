"""Recipes in timm's world: models, data, evaluation, training.

Everything here drives timm's public interface. ``sparseml prune`` and ``sparseml train`` are made
of it and of :mod:`sparseml.run`, whose names can be imported from here, too. Nothing is imported
before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.run.loop import steps_in_epoch
    from sparseml.run.precision import autocast_of
    from sparseml.timm.data import DataSource, class_count, require_classes
    from sparseml.timm.evaluation import evaluate
    from sparseml.timm.glue import GLUE
    from sparseml.timm.models import (
        SplitLinear,
        data_config,
        load_model,
        model_kwargs,
        output_classes,
        short_name,
        split_qkv,
    )
    from sparseml.timm.session import ImageSession, open_session
    from sparseml.timm.settings import IGNORED_SETTINGS, OneShotSettings, TrainingSettings
    from sparseml.timm.training import (
        Distillation,
        ImageTraining,
        MaskedEma,
        make_mixup,
        training_loss,
    )
    from sparseml.timm.training_setup import set_up_training

__all__ = [
    "GLUE",
    "IGNORED_SETTINGS",
    "DataSource",
    "Distillation",
    "ImageSession",
    "ImageTraining",
    "MaskedEma",
    "OneShotSettings",
    "SplitLinear",
    "TrainingSettings",
    "autocast_of",
    "class_count",
    "data_config",
    "evaluate",
    "load_model",
    "make_mixup",
    "model_kwargs",
    "open_session",
    "output_classes",
    "require_classes",
    "set_up_training",
    "short_name",
    "split_qkv",
    "steps_in_epoch",
    "training_loss",
]

_HOMES = {
    "timm.data": "DataSource class_count require_classes",
    "timm.evaluation": "evaluate",
    "timm.glue": "GLUE",
    "timm.models": (
        "SplitLinear data_config load_model model_kwargs output_classes short_name split_qkv"
    ),
    "timm.session": "ImageSession open_session",
    "timm.settings": "IGNORED_SETTINGS OneShotSettings TrainingSettings",
    "timm.training": ("Distillation ImageTraining MaskedEma make_mixup training_loss"),
    "timm.training_setup": "set_up_training",
    # what every run has, whoever trains
    "pytorch.utils.batch_streams": "GradientBatches make_grad_sampler",
    "run.precision": "autocast_of",
    "run.loop": "steps_in_epoch",
    "run.processes": "processes",
    "run": (
        "Checkpoints Processes RunError SharpnessAware asked_sparsities atomic_text epochs_to_run "
        "find_checkpoint frozen_statistics load_recipe masked_sparsity masks_in_force one_line "
        "read_masks require_fitting_patterns require_fitting_schedule retune_batch_norm "
        "run_reported say shown_progress tracked_norms write_masks"
    ),
}
__getattr__, __dir__ = lazy_names(
    __name__, {f"sparseml.{home}": names for home, names in _HOMES.items()}
)
