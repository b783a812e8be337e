"""The glue between runs and timm; what is slow to import is imported by what runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparseml.run.settings.parser import parse
from sparseml.timm.settings import (
    IGNORED_SETTINGS,
    OneShotSettings,
    TrainingSettings,
    ignored_in_one_shot,
)

if TYPE_CHECKING:
    from sparseml.run.processes import Processes
    from sparseml.run.session import Glue, LogStep
    from sparseml.timm.session import ImageSession
    from sparseml.timm.training import ImageTraining

__all__ = ["GLUE", "TimmGlue"]

_ONE_SHOT = """\
Prune a model in one shot, without training, to one or several sparsities, and
evaluate each.

Example:
  %(prog)s --model resnet18 --pretrained --data-dir imagenet \\
    --sparseml-recipe recipe:timm/one_shot/cap/resnet --sparsities 0.5 0.7
"""
_TRAINING = """\
Train a model while a recipe prunes it: gradually, or in one shot before
fine-tuning.

Example:
  %(prog)s --model resnet18 --pretrained --data-dir imagenet \\
    --sparseml-recipe recipe:timm/gradual/gm/resnet --lr 0.01
"""


class TimmGlue:
    """Models of timm, and of the user, that tell images apart; see :class:`sparseml.run.Glue`."""

    def one_shot_settings(self, argv: Sequence[str], prog: str | None = None) -> OneShotSettings:
        """Return the settings of a one-shot run; the file of a training run may be given, too."""
        return parse(OneShotSettings, argv, ignored_in_one_shot(), _ONE_SHOT, prog)

    def training_settings(self, argv: Sequence[str], prog: str | None = None) -> TrainingSettings:
        """Return the settings of a training run."""
        return parse(TrainingSettings, argv, IGNORED_SETTINGS, _TRAINING, prog)

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
