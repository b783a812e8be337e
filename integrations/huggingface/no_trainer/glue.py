"""What ties the GLUE scripts to the runs of :mod:`sparseml.run`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from no_trainer.recipes import Steps, pruning_steps, recipe_of
from no_trainer.settings import ScriptSettings
from sparseml.run import RunError, atomic_text
from sparseml.run.files import require_room_for_run
from sparseml.run.settings import parse

if TYPE_CHECKING:
    from no_trainer.session import GlueSession
    from no_trainer.training import GlueTraining
    from sparseml.run import Processes
    from sparseml.run.session import LogStep

_LOGGER = logging.getLogger(__name__)
_DESCRIPTION = (
    "Fine-tune a classifier of texts by accelerate, and prune it meanwhile, by a --recipe or by "
    "the flags of Intel's example."
)


class GlueScript:
    """A script; see :class:`sparseml.run.Glue`, of which it has what a training run takes.

    :param mixed: prune feed-forward layers weight by weight, query, key and value 4x1
    """

    def __init__(self, mixed: bool = False) -> None:
        self._mixed = mixed
        self._texts: Any = None
        self.folder = Path()
        self.uploads = False
        self.hub_model_id: str | None = None
        self.hub_token: str | None = None

    def training_settings(self, argv: Sequence[str], prog: str | None = None) -> ScriptSettings:
        """Return the settings; the recipe that flags mean is in ``recipe.yaml`` then.

        :raises RunError: for flags that do not fit together, and data that are not there
        """
        settings = parse(ScriptSettings, argv, description=_DESCRIPTION, prog=prog)
        run, keeping = settings.run, settings.checkpoints
        hub = settings.hub
        self.uploads, self.hub_model_id, self.hub_token = vars(hub).values()
        hub.hub_token = None  # the settings are written into the run's folder
        if self._mixed and {"pruning_pattern", "pruning_type"} & settings.given:
            raise RunError("the mixed script has its own --pruning-pattern and --pruning-type")
        if run.sparseml_recipe and settings.pruning.do_prune:
            raise RunError(f"give --recipe {run.sparseml_recipe} or --do-prune, not both")
        self.folder = Path(run.output).expanduser().absolute()
        if keeping.resume and "output" not in settings.given:
            self.folder = _folder_of(keeping.resume)
        run.output, run.experiment = str(self.folder.parent), self.folder.name
        if not keeping.resume and os.environ.get("RANK", "0") == "0":
            require_room_for_run(self.folder, run.overwrite)
        from no_trainer.session import open_data

        self._texts = open_data(settings)
        if not run.sparseml_recipe:
            run.sparseml_recipe = str(self.folder / "recipe.yaml")
            text = self._recipe(settings)
            with atomic_text(run.sparseml_recipe) as file:
                file.write(text)
        return settings

    def open_session(self, settings: ScriptSettings, where: Processes) -> GlueSession:
        """Load the model, and make tokens of the texts."""
        from no_trainer.session import open_session

        if "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
            _LOGGER.warning(
                "accelerate launch starts one process on a CPU, whatever --num_processes says; "
                "torchrun --nproc-per-node N starts several"
            )
        self.session = open_session(settings, self._texts, where)
        return self.session

    def set_up_training(
        self, session: GlueSession, settings: ScriptSettings, loggers: list[Any], log: LogStep
    ) -> GlueTraining:
        """Build all that training takes."""
        from no_trainer.training import set_up_training

        return set_up_training(session, settings, loggers, log, self.folder)

    def _recipe(self, settings: ScriptSettings) -> str:
        chosen, flags = settings.training, settings.pruning
        accumulated = chosen.gradient_accumulation_steps
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        batch = settings.data.per_device_train_batch_size * processes * accumulated
        examples = len(self._texts.train)
        epochs = chosen.num_train_epochs
        if chosen.max_train_steps is not None:
            epochs = -(-chosen.max_train_steps // -(-examples // batch))
        steps = Steps(0, 0, 1)
        if flags.do_prune:
            steps = pruning_steps(flags, examples, batch, epochs, chosen.max_train_steps)
        return recipe_of(flags, epochs, steps, self._mixed)


def _folder_of(checkpoint: str) -> Path:
    path = Path(checkpoint).expanduser().absolute()
    path = path if path.is_dir() else path.parent
    return path.parent if path.name == "checkpoints" else path
