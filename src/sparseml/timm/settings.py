"""The settings of a one-shot run and of a training run of timm's models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sparseml.run.settings.flags import Settings
from sparseml.run.settings.groups import CheckpointSettings, RunSettings, SweepSettings
from sparseml.timm.image_settings import (
    DataSettings,
    ModelSettings,
    SamplerSettings,
    TrainingImageSettings,
)
from sparseml.timm.training_settings import (
    AugmentationSettings,
    ExtraSettings,
    OptimizerSettings,
    ScheduleSettings,
)

__all__ = ["IGNORED_SETTINGS", "OneShotSettings", "TrainingSettings"]

# Flags of timm's train.py, up to 1.0, that have no effect here → what they are when they are off.
_SWITCHES = """
    bce_sum dataset_trust_remote_code fast_norm grad_checkpointing jsd_loss load_ema
    model_ema_force_cpu naflex_loader no_ddp_bb resplit save_images split_bn synchronize_step
    torchscript use_multi_epochs_loader
"""
_VALUES = """
    aug_splits bce_pos_weight bn_eps bn_momentum color_jitter_prob dist_backend distill_loss_weight
    drop_block drop_connect epoch_repeats fuser gaussian_blur_prob gp grayscale_prob head_init_bias
    head_init_scale input_img_mode input_key kd_model_name kd_student_feature_dim
    kd_teacher_feature_dim layer_decay_min_scale layer_decay_no_opt_scale local_rank model_dtype
    pretrained_path recovery_interval start_epoch target_key task_loss_weight torchcompile
    torchcompile_mode train_num_samples tta val_num_samples wandb_resume_id
"""
_LISTS = "device_modules lr_noise naflex_patch_size_probs naflex_patch_sizes wandb_tags"
IGNORED_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(_SWITCHES.split(), False),
    **dict.fromkeys(_VALUES.split()),
    **{name: [] for name in _LISTS.split()},
    "amp_impl": "native",
    "checkpoint_hist": 10,
    "eval_metric": "top1",
    "kd_distill_type": "logit",
    "kd_loss_type": "kl",
    "kd_temperature": 4.0,
    "kd_token_distill_type": "soft",
    "lr_noise_pct": 0.67,
    "lr_noise_std": 1.0,
    "naflex_loss_scale": "linear",
    "naflex_max_seq_len": 576,
    "naflex_train_seq_lens": [128, 256, 576, 784, 1024],
    "worker_seeding": "all",
}


@dataclass(kw_only=True)
class OneShotSettings(Settings):
    """All settings of a one-shot run."""

    DEFAULTS = {"output": "./output/one-shot"}

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    run: RunSettings
    sweep: SweepSettings = field(default_factory=SweepSettings)
    augmentation: TrainingImageSettings = field(default_factory=TrainingImageSettings)


@dataclass(kw_only=True)
class TrainingSettings(Settings):
    """All settings of a training run."""

    DEFAULTS = {"output": "./output/train"}

    data: DataSettings
    model: ModelSettings = field(default_factory=ModelSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    run: RunSettings
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    extras: ExtraSettings = field(default_factory=ExtraSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
