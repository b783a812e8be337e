"""The glue between runs and fairseq; what is slow to import is imported by what runs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from sparseml.fairseq.settings import OneShotSettings
from sparseml.run.errors import RunError
from sparseml.run.settings.parser import parse

if TYPE_CHECKING:
    from sparseml.fairseq.session import SequenceSession
    from sparseml.run.processes import Processes
    from sparseml.run.session import Glue, LogStep

__all__ = ["GLUE", "FairseqGlue"]

_ONE_SHOT = (
    "Prune a model in one shot, without training, to one or several sparsities, and evaluate each."
    "\nThese are the flags for models of fairseq, of translation and of language modelling; with\n"
    "--model hf:DIR those for models of Transformers, without either those for timm's."
)
_ONE_SHOT_EXAMPLES = (
    "data-bin --model fairseq:checkpoint_best.pt --recipe recipe:fairseq/one_shot/cap/transformer "
    "--sparsities 0.5 0.8 --bleu",
    "wiki-bin --model fairseq:lm.pt --recipe recipe:fairseq/one_shot/gm/transformer "
    "--gen-subset test",
)
_TRAINING = (
    "models of fairseq are trained by fairseq itself: fairseq-train DATA_BIN ... --user-dir "
    '"$(python -m sparseml.fairseq)" --sparseml-recipe RECIPE; `sparseml prune` prunes them in one '
    "shot"
)


class FairseqGlue:
    """Translation and language models; see :class:`sparseml.run.Glue`."""

    def one_shot_settings(self, argv: Sequence[str], prog: str | None = None) -> OneShotSettings:
        """Return the settings of a one-shot run."""
        return parse(
            OneShotSettings,
            argv,
            description=_ONE_SHOT,
            prog=prog,
            examples=_ONE_SHOT_EXAMPLES,
        )

    def training_settings(self, argv: Sequence[str], prog: str | None = None) -> NoReturn:
        """Say how models of fairseq are trained.

        :raises RunError: always
        """
        raise RunError(_TRAINING)

    def open_session(self, settings: OneShotSettings, where: Processes) -> SequenceSession:
        """Load the model and find the sentences."""
        from sparseml.fairseq.reading import quiet

        # what its decoder does, at every batch of the run
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
        with quiet():
            from sparseml.fairseq.session import open_session

            return open_session(settings, where)

    def set_up_training(
        self, session: Any, settings: Any, loggers: list[Any], log: LogStep
    ) -> NoReturn:
        """Say the same.

        :raises RunError: always
        """
        raise RunError(_TRAINING)


GLUE: Glue = FairseqGlue()
