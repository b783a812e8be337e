"""The settings of a one-shot run and of a training run of timm's models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sparseml.run.settings.flags import Group, Settings, flag, harmless
from sparseml.run.settings.groups import CheckpointSettings, SweepSettings
from sparseml.timm.image_settings import (
    DataSettings,
    ImageRunSettings,
    ModelSettings,
    SamplerSettings,
    TrainingImageSettings,
)

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
_OTHERS = """
    amp_impl=native checkpoint_hist=10 eval_metric=top1 kd_distill_type=logit kd_loss_type=kl
    kd_temperature=4.0 kd_token_distill_type=soft lr_noise_pct=0.67 lr_noise_std=1.0
    naflex_loss_scale=linear naflex_max_seq_len=576 worker_seeding=all
"""
IGNORED_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(_SWITCHES.split(), False),
    **dict.fromkeys(_VALUES.split()),
    **{name: [] for name in _LISTS.split()},
    **dict(pair.split("=") for pair in _OTHERS.split()),
    "naflex_train_seq_lens": [128, 256, 576, 784, 1024],
}


@dataclass
class OptimizerSettings(Group):
    """Batches, the optimizer, and what is done to gradients and layers."""

    TITLE = "optimisation"

    batch_size: int = flag(128, "of each process", also=("-b",), at_least=1)
    grad_accum_steps: int = flag(1, "batches per optimizer step", metavar="N", at_least=1)
    opt: str = flag("sgd", "name in timm", changes="optimizer")
    opt_eps: float | None = flag(None, "epsilon [the optimizer's]")
    opt_betas: Sequence[float] | None = flag(None, "betas [the optimizer's]", nargs="+")
    opt_args: dict[str, Any] = flag({}, "more for it, KEY=VALUE", names=("--opt-kwargs",))
    momentum: float = flag(0.9, "of optimizers that have one", at_least=0, at_most=1)
    weight_decay: float = flag(2e-5, "not on biases and norms", at_least=0)
    layer_decay: float | None = flag(None, "factor of the rate from layer to layer", above=0)
    clip_grad: float | None = flag(None, "clip gradients to this", above=0)
    clip_mode: str = flag("norm", "what of them", choices=("norm", "value", "agc"))
    drop_rate: float | None = flag(
        None, "dropout [the model's]", names=("--drop",), at_least=0, at_most=1
    )
    drop_path_rate: float | None = flag(
        None, "of whole blocks [the model's]", names=("--drop-path",), at_least=0, at_most=1
    )
    sync_bn: bool = flag(False, "batch norms over all processes")
    dist_bn: str = flag(
        "reduce", "average their statistics after each epoch", choices=("reduce", "broadcast", "")
    )


@dataclass
class ScheduleSettings(Group):
    """How long to train, and at what learning rate."""

    TITLE = "learning rate"
    DESCRIPTION = "not used when the recipe has a modifier for it"

    epochs: int | None = flag(None, "[the recipe's, or 300]")
    sched: str = flag("cosine", "cosine, tanh, step, multistep, plateau, ...", changes="optimizer")
    sched_on_updates: bool = flag(False, "change the rate at every step, not every epoch")
    lr: float | None = flag(None, "[--lr-base scaled by the batch size]", at_least=0)
    lr_base: float = flag(0.1, "--lr at a batch of --lr-base-size in all", at_least=0)
    lr_base_size: int = flag(256, "of a batch, over processes and --grad-accum-steps", at_least=1)
    lr_base_scale: str = flag(
        "linear", "with the batch; '' as timm does it", choices=("", "linear", "sqrt")
    )
    warmup_epochs: int = flag(5, "in which the rate rises to --lr", at_least=0)
    cooldown_epochs: int = flag(0, "more, at the end, at --min-lr", at_least=0)
    decay_epochs: float = flag(90, "from one decay to the next (step)")
    decay_milestones: Sequence[int] = flag((90, 180, 270), "epochs (multistep)", nargs="+")
    patience_epochs: int = flag(10, "without a better top1 (plateau)", at_least=0)
    lr_cycle_limit: int = flag(1, "how many cycles")
    warmup_lr: float = flag(1e-5, "where the rate begins", at_least=0)
    min_lr: float = flag(0.0, "where it ends", at_least=0)
    decay_rate: float = flag(0.1, "factor of a decay", above=0)
    lr_cycle_mul: float = flag(1.0, "how much longer each cycle is")
    lr_cycle_decay: float = flag(0.5, "how much lower each begins")
    lr_k_decay: float = flag(1.0, "exponent of time (cosine, poly)")
    warmup_prefix: bool = flag(False, "do not count the warm-up as epochs")


@dataclass
class AugmentationSettings(TrainingImageSettings):
    """What is done to images and labels."""

    TITLE = "augmentation"
    DESCRIPTION = None

    mixup: float = flag(0.0, "alpha; mixes pairs of images", at_least=0)
    cutmix: float = flag(0.0, "alpha; puts boxes of one into another", at_least=0)
    mixup_prob: float = flag(1.0, "that any of both is done", at_least=0, at_most=1)
    cutmix_minmax: Sequence[float] | None = flag(None, "sides of the boxes", nargs=2)
    mixup_switch_prob: float = flag(0.5, "of cutmix, with both", at_least=0, at_most=1)
    mixup_mode: str = flag("batch", "one draw for each", choices=("batch", "pair", "elem"))
    mixup_off_epoch: int = flag(0, "from which on none of both is done", at_least=0)
    smoothing: float = flag(0.1, "of labels", at_least=0, below=1)
    bce_loss: bool = flag(False, "binary cross entropy for each class")
    bce_target_thresh: float | None = flag(None, "from which on a mixed label is 1 there")


@dataclass
class ExtraSettings(Group):
    """Averaged weights, sharpness-aware minimisation, a teacher."""

    TITLE = "averages, sharpness, teacher"

    model_ema: bool = flag(False, "also average the weights, masked")
    model_ema_decay: float = flag(0.9998, "at each step", at_least=0, at_most=1)
    model_ema_warmup: bool = flag(False, "less of it at first")
    sam: bool = flag(False, "sharpness-aware minimisation")
    sam_rho: float = flag(0.2, "how far it looks")
    sam_adaptive: bool = flag(False, "in proportion to the weights")
    sam_topk: float = flag(0.0, "fraction of weights to leave out there", at_least=0, below=1)
    sam_global_sparsity: bool = flag(False, "rank the weights of all layers there")
    teacher: str | None = flag(None, "name in timm or module.path:callable")
    teacher_checkpoint: str | None = harmless(None, "its weights", metavar="FILE")
    distill_weight: float = flag(0.5, "of the teacher in the loss", at_least=0, at_most=1)
    distill_temperature: float = flag(1.0, "softens both outputs", above=0)


@dataclass(kw_only=True)
class OneShotSettings(Settings):
    """All settings of a one-shot run."""

    DEFAULTS = {"output": "./output/one-shot"}

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    run: ImageRunSettings
    sweep: SweepSettings = field(default_factory=SweepSettings)
    augmentation: TrainingImageSettings = field(default_factory=TrainingImageSettings)


@dataclass(kw_only=True)
class TrainingSettings(Settings):
    """All settings of a training run."""

    DEFAULTS = {"output": "./output/train"}

    data: DataSettings
    model: ModelSettings = field(default_factory=ModelSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    run: ImageRunSettings
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    extras: ExtraSettings = field(default_factory=ExtraSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
