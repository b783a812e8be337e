"""The settings of a one-shot run and of a training run of timm's models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparseml.run.settings.config import config_keys
from sparseml.run.settings.flags import Settings
from sparseml.run.settings.groups import CheckpointSettings, RunSettings, SweepSettings
from sparseml.run.settings.parser import parser_for
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

__all__ = ["IGNORED_SETTINGS", "OneShotSettings", "TrainingSettings", "ignored_in_one_shot"]

# in timm's files, but without effect here whatever the value
IGNORED_SETTINGS: dict[str, str] = {
    "worker_seeding": "all workers are seeded",
    "eval_metric": "top1 decides",
    "recovery_interval": "each epoch ends with a checkpoint",
    "checkpoint_hist": "one checkpoint per sparsity is kept",
    "jsd_loss": "",
    "native_amp": "--amp",
    "save_images": "",
    "tta": "",
    "decay_milestones": "",
    "resplit": "",
    "use_multi_epochs_loader": "",
    "local_rank": "torchrun tells",
    "dist_backend": "the device tells",
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


def ignored_in_one_shot() -> Mapping[str, Any]:
    """Return the keys that a file may have for a one-shot run, too: those of a training run."""
    return {**IGNORED_SETTINGS, **config_keys(parser_for(TrainingSettings))}
