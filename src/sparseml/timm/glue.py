"""The glue between runs and timm; what is slow to import is imported by what runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparseml.run.settings.parser import parse
from sparseml.timm.settings import IGNORED_SETTINGS, OneShotSettings, TrainingSettings

if TYPE_CHECKING:
    from sparseml.run.processes import Processes
    from sparseml.run.session import Glue, LogStep
    from sparseml.timm.session import ImageSession
    from sparseml.timm.training import ImageTraining

__all__ = ["GLUE", "TimmGlue"]

_OTHERS = (
    "These are the flags for models of timm; --model hf:DIR --help shows those of Transformers,\n"
    "--model fairseq:FILE.pt --help those of fairseq."
)
_ONE_SHOT = (
    "Prune a model in one shot, without training, to one or several sparsities, and evaluate each."
    f"\n{_OTHERS}"
)
_TRAINING = (
    "Train a model while a recipe prunes it: gradually, or in one shot before fine-tuning."
    f"\n{_OTHERS}"
)
_ONE_SHOT_EXAMPLES = (
    "/data/imagenet --model resnet18 --recipe recipe:timm/one_shot/gm/resnet --sparsities 0.5 0.9",
    "images --model resnet18 --num-classes 10 --checkpoint mine.pth --recipe my.yaml --bn-retune 9",
    "--config args.yaml --recipe my.yaml --recipe-args sparsity=0.8 --output out",
)
_TRAINING_EXAMPLES = (
    "/data/imagenet --model deit_tiny_patch16_224 --recipe recipe:timm/gradual/cap/vit --amp",
    "images --model resnet18 --num-classes 10 --recipe my.yaml --epochs 30 --warmup-epochs 2",
    "--config args.yaml --recipe my.yaml  # args.yaml of train.py of timm, too",
    "images --recipe my.yaml --resume output/train/resnet18-my",
    "images --recipe edited.yaml --checkpoint out/model.safetensors --initial-masks out",
)


class TimmGlue:
    """Models of timm, and of the user, that tell images apart; see :class:`sparseml.run.Glue`."""

    def one_shot_settings(self, argv: Sequence[str], prog: str | None = None) -> OneShotSettings:
        """Return the settings of a one-shot run; the file of a training run may be given, too."""
        return parse(
            OneShotSettings,
            argv,
            IGNORED_SETTINGS,
            _ONE_SHOT,
            prog,
            examples=_ONE_SHOT_EXAMPLES,
            files_of=TrainingSettings,
        )

    def training_settings(self, argv: Sequence[str], prog: str | None = None) -> TrainingSettings:
        """Return the settings of a training run."""
        return parse(
            TrainingSettings, argv, IGNORED_SETTINGS, _TRAINING, prog, examples=_TRAINING_EXAMPLES
        )

    def open_session(
        self, settings: OneShotSettings | TrainingSettings, where: Processes
    ) -> ImageSession:
        """Load the model and find the images."""
        from sparseml.timm.session import open_session

        return open_session(settings, where)

    def set_up_training(
        self,
        session: ImageSession,
        settings: TrainingSettings,
        loggers: list[Any],
        log: LogStep,
    ) -> ImageTraining:
        """Build all that training takes."""
        from sparseml.timm.training_setup import set_up_training

        return set_up_training(session, settings, loggers, log)


GLUE: Glue = TimmGlue()
