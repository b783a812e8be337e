"""The settings of training: timm's, as far as they matter while a model is pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparseml.run.settings.flags import Group, flag
from sparseml.timm.image_settings import TrainingImageSettings

__all__ = [
    "AugmentationSettings",
    "ExtraSettings",
    "OptimizerSettings",
    "ScheduleSettings",
]


@dataclass
class OptimizerSettings(Group):
    """Batches, the optimizer, and what is done to gradients and layers."""

    TITLE = "optimisation"

    batch_size: int = flag(128, "of each process", also=("-b",), at_least=1)
    grad_accum_steps: int = flag(1, "batches per optimizer step", metavar="N", at_least=1)
    opt: str = flag("sgd", "name in timm", changes="optimizer")
    opt_eps: float | None = flag(None)
    opt_betas: Sequence[float] | None = flag(None, nargs="+")
    opt_args: dict[str, Any] = flag({}, names=("--opt-kwargs",))
    momentum: float = flag(0.9, at_least=0, at_most=1)
    weight_decay: float = flag(2e-5, at_least=0)
    layer_decay: float | None = flag(None, above=0)
    clip_grad: float | None = flag(None, above=0)
    clip_mode: str = flag("norm", choices=("norm", "value", "agc"))
    drop_rate: float | None = flag(None, names=("--drop",), at_least=0, at_most=1)
    drop_path_rate: float | None = flag(None, names=("--drop-path",), at_least=0, at_most=1)
    sync_bn: bool = flag(False)
    dist_bn: str = flag("reduce", choices=("reduce", "broadcast", ""))


@dataclass
class ScheduleSettings(Group):
    """How long to train, and at what learning rate."""

    TITLE = "learning rate"
    DESCRIPTION = "not used when the recipe has a modifier for it"

    epochs: int | None = flag(None, "[the recipe's, or 300]")
    sched: str = flag("cosine", changes="optimizer")
    sched_on_updates: bool = flag(False)
    lr: float | None = flag(None, "[--lr-base scaled by the batch size]", at_least=0)
    lr_base: float = flag(0.1, at_least=0)
    lr_base_size: int = flag(256, at_least=1)
    warmup_epochs: int = flag(5, at_least=0)
    cooldown_epochs: int = flag(0, at_least=0)
    decay_epochs: int = flag(90)
    patience_epochs: int = flag(10, at_least=0)
    lr_cycle_limit: int = flag(1)
    warmup_lr: float = flag(1e-5, at_least=0)
    min_lr: float = flag(0.0, at_least=0)
    decay_rate: float = flag(0.1, above=0)
    lr_cycle_mul: float = flag(1.0)
    lr_cycle_decay: float = flag(0.5)
    lr_k_decay: float = flag(1.0)
    warmup_prefix: bool = flag(False)


@dataclass
class AugmentationSettings(TrainingImageSettings):
    """What is done to images and labels."""

    TITLE = "augmentation"
    DESCRIPTION = None

    mixup: float = flag(0.0, at_least=0)
    cutmix: float = flag(0.0, at_least=0)
    mixup_prob: float = flag(1.0, at_least=0, at_most=1)
    cutmix_minmax: Sequence[float] | None = flag(None, nargs=2)
    mixup_switch_prob: float = flag(0.5, at_least=0, at_most=1)
    mixup_mode: str = flag("batch", choices=("batch", "pair", "elem"))
    mixup_off_epoch: int = flag(0, at_least=0)
    smoothing: float = flag(0.1, "of labels", at_least=0, below=1)
    bce_loss: bool = flag(False)
    bce_target_thresh: float | None = flag(None)


@dataclass
class ExtraSettings(Group):
    """Averaged weights, sharpness-aware minimisation, a teacher."""

    TITLE = "averages, sharpness, teacher"

    model_ema: bool = flag(False, "also average the weights, masked")
    model_ema_decay: float = flag(0.9998, at_least=0, at_most=1)
    model_ema_warmup: bool = flag(False)
    sam: bool = flag(False, "sharpness-aware minimisation")
    sam_rho: float = flag(0.2)
    sam_adaptive: bool = flag(False)
    sam_topk: float = flag(0.0, "fraction of weights to leave out there", at_least=0, below=1)
    sam_global_sparsity: bool = flag(False)
    teacher: str | None = flag(None, "name in timm or module.path:callable")
    teacher_checkpoint: str | None = flag(None, metavar="FILE", changes="nothing")
    distill_weight: float = flag(0.5, at_least=0, at_most=1)
    distill_temperature: float = flag(1.0, above=0)
