"""The glue between runs and Transformers; what is slow to import is imported by what runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparseml.run.settings.parser import parse
from sparseml.transformers.settings import OneShotSettings, TrainingSettings

if TYPE_CHECKING:
    from sparseml.run.processes import Processes
    from sparseml.run.session import Glue, LogStep
    from sparseml.transformers.session import TextSession
    from sparseml.transformers.training import TextTraining

__all__ = ["GLUE", "TransformersGlue"]

_OTHERS = (
    "These are the flags for models of Transformers; without --model hf:DIR, those for timm's,\n"
    "with --model fairseq:FILE.pt those for fairseq's."
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
    "data/sst2 --task sst2 --model hf:bert --recipe recipe:transformers/one_shot/cap/bert "
    "--sparsities 0.5 0.8",
    "stories.txt.gz --model hf:llama --recipe recipe:transformers/one_shot/obs/causal --window 256",
    "--train-file a.csv --validation-file b.csv --model hf:bert --recipe my.yaml",
)
_TRAINING_EXAMPLES = (
    "data/mrpc --task mrpc --model hf:bert --recipe my.yaml --epochs 5 --lr 3e-5",
    "data/mrpc --task mrpc --model hf:bert --recipe distil.yaml --teacher hf:fine_tuned",
    "data/mrpc --model hf:bert --recipe my.yaml --resume output/train/bert-my",
)


class TransformersGlue:
    """Classifiers of texts and causal models; see :class:`sparseml.run.Glue`."""

    def one_shot_settings(self, argv: Sequence[str], prog: str | None = None) -> OneShotSettings:
        """Return the settings of a one-shot run; the file of a training run may be given, too."""
        return parse(
            OneShotSettings,
            argv,
            description=_ONE_SHOT,
            prog=prog,
            examples=_ONE_SHOT_EXAMPLES,
            files_of=TrainingSettings,
        )

    def training_settings(self, argv: Sequence[str], prog: str | None = None) -> TrainingSettings:
        """Return the settings of a training run."""
        return parse(
            TrainingSettings, argv, description=_TRAINING, prog=prog, examples=_TRAINING_EXAMPLES
        )

    def open_session(
        self, settings: OneShotSettings | TrainingSettings, where: Processes
    ) -> TextSession:
        """Load the model and find the texts."""
        from sparseml.transformers.session import open_session

        return open_session(settings, where)

    def set_up_training(
        self,
        session: TextSession,
        settings: TrainingSettings,
        loggers: list[Any],
        log: LogStep,
    ) -> TextTraining:
        """Build all that training takes."""
        from sparseml.transformers.training import set_up_training

        return set_up_training(session, settings, loggers, log)


GLUE: Glue = TransformersGlue()
