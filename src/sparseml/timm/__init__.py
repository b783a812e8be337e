"""Recipes in timm's world: models, data, gradients, training.

Everything here drives timm's public interface. ``research/one_shot_pruning.py`` and
``research/sparse_training.py`` are made of it.
"""

from sparseml.pytorch.utils.batch_streams import GradientBatches, make_grad_sampler
from sparseml.run.batch_norm import frozen_statistics, retune_batch_norm, tracked_norms
from sparseml.run.checkpoints import Checkpoints, find_checkpoint
from sparseml.run.errors import RunError, one_line, run_reported
from sparseml.run.files import atomic_text
from sparseml.run.fitting import (
    epochs_to_run,
    load_recipe,
    require_fitting_patterns,
    require_fitting_schedule,
)
from sparseml.run.masks import masked_sparsity, masks_in_force, read_masks, write_masks
from sparseml.run.processes import Processes, processes
from sparseml.run.progress import say, shown_progress
from sparseml.run.resuming import require_same_run, run_settings
from sparseml.run.sam import SharpnessAware
from sparseml.run.sweep import Cut, asked_sparsities, cuts
from sparseml.timm.attention import SplitLinear, split_qkv
from sparseml.timm.data import DataSource, class_count, require_classes
from sparseml.timm.ema import MaskedEma
from sparseml.timm.evaluation import evaluate
from sparseml.timm.losses import Distillation, make_mixup, training_loss
from sparseml.timm.models import data_config, load_model, output_classes, short_name
from sparseml.timm.options import (
    add_data_flags,
    add_model_flags,
    add_run_flags,
    add_sampler_flags,
    model_kwargs,
    parse,
    with_dashes,
)
from sparseml.timm.session import Session, autocast_of, open_session, prepare
from sparseml.timm.training import Trainer, steps_in_epoch
from sparseml.timm.training_options import IGNORED_SETTINGS, training_parser, training_settings
from sparseml.timm.training_setup import Training, set_up_training

__all__ = [
    "IGNORED_SETTINGS",
    "Checkpoints",
    "Cut",
    "DataSource",
    "Distillation",
    "GradientBatches",
    "MaskedEma",
    "Processes",
    "RunError",
    "Session",
    "SharpnessAware",
    "SplitLinear",
    "Trainer",
    "Training",
    "add_data_flags",
    "add_model_flags",
    "add_run_flags",
    "add_sampler_flags",
    "asked_sparsities",
    "atomic_text",
    "autocast_of",
    "class_count",
    "cuts",
    "data_config",
    "epochs_to_run",
    "evaluate",
    "find_checkpoint",
    "frozen_statistics",
    "load_model",
    "load_recipe",
    "make_grad_sampler",
    "make_mixup",
    "masked_sparsity",
    "masks_in_force",
    "model_kwargs",
    "one_line",
    "open_session",
    "output_classes",
    "parse",
    "prepare",
    "processes",
    "read_masks",
    "require_classes",
    "require_fitting_patterns",
    "require_fitting_schedule",
    "require_same_run",
    "retune_batch_norm",
    "run_reported",
    "run_settings",
    "say",
    "set_up_training",
    "short_name",
    "shown_progress",
    "split_qkv",
    "steps_in_epoch",
    "tracked_norms",
    "training_loss",
    "training_parser",
    "training_settings",
    "with_dashes",
    "write_masks",
]
