"""What a trainer lends to a run, whoever it is.

A run is driven from here; how to load a model and its data, to evaluate and to train it is known to
the glue of each trainer, such as :mod:`sparseml.timm.glue`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from sparseml.report.formats import prefers_low
from sparseml.run.processes import Processes
from sparseml.run.settings.flags import Changes
from sparseml.run.settings.groups import CheckpointSettings, RunSettings, SweepSettings

Found = dict[str, float]
"""What an evaluation, or an epoch of training, has found: name → number."""

LogStep = Callable[[int, Found], None]
"""Told of a step of training: its number, and what to log."""


@dataclass(frozen=True)
class Metric:
    """One of the numbers that tell how good a model is.

    :param name: as evaluations call it
    :param column: in the table of a one-shot run
    :param percent: whether it is a fraction, shown in percent
    """

    name: str
    column: str
    percent: bool = True

    def text(self, found: Mapping[str, float]) -> str:
        """Return name and value in words."""
        return f"{self.name} {found[self.name]:{'.2%' if self.percent else '.4f'}}"

    @property
    def head(self) -> str:
        """Return the name, as wide as the cells below it."""
        return f"{self.name:>6}"

    def cell(self, value: float) -> str:
        """Return the value as a table has it."""
        shown = f"{100 * value:.2f}" if self.percent else f"{value:.3f}"
        return shown.rjust(len(self.head))

    def betters(self, value: float, before: float) -> bool:
        """Return whether a value is better than the one before; a lower loss or error is."""
        return value < before if prefers_low(self.name) else value > before


class Session(Protocol):
    """A model with its data.

    :ivar model: the dense model, on the device of this process
    :ivar where: which process this is
    :ivar model_name: fit for file names
    :ivar metrics: what :meth:`evaluate` finds, the most telling first: by it the best checkpoint
        is chosen
    :ivar packages: whose versions are worth to be kept with the results
    :ivar training_size: how many inputs there are to train on
    :ivar gradient_batch: how many are in a batch that :meth:`grad_sampler` gives

    It may also have ``evaluated_samples``, how many :meth:`evaluate` measures on, and
    ``weights_loaded``, whether the dense model was trained rather than just initialised: without
    them reports call no difference a gain. With ``write_model(model, manager, folder)`` a session
    also writes pruned models as its library keeps them.
    """

    model: nn.Module
    where: Processes
    model_name: str
    packages: Sequence[str]
    gradient_batch: int

    @property
    def metrics(self) -> Sequence[Metric]: ...

    @property
    def training_size(self) -> int: ...

    def evaluate(self, model: nn.Module, name: str = "evaluating") -> Found:
        """Return how good a model is on held-out data, the same in all processes.

        :param name: of the bar that shows how far this is
        """

    def training_batches(self) -> Iterable[Any]:
        """Return training data in random order, as the model is trained on them.

        Batch norms are measured on them, in batches of the setting ``bn_retune_batch_size`` if that
        is given. Inputs come first in a batch.
        """

    def grad_sampler(self) -> dict[str, Any]:
        """Return what gradients are sampled on; nothing is loaded before it is needed."""

    def sample_inputs(self, count: int = 1) -> Any:
        """Return a batch to count operations and take times on."""


class Training(Protocol):
    """A training that is ready to begin.

    :ivar manager: of the recipe; it has modified the model
    :ivar model: as it is trained, in its wrappers if there are any
    :ivar epochs: how many there are, counted from 0
    :ivar averaged: a moving average of the weights, if there is one
    :ivar parts: what a checkpoint holds beside the model: ``optimizer``, ``manager``,
        ``scheduler``, ``scaler``, each perhaps None
    :ivar steps: optimizer steps taken
    :ivar begun: what it takes to go on with an epoch that was stopped in its middle
    """

    manager: Any
    model: nn.Module
    epochs: int
    steps_per_epoch: int
    begun: dict[str, Any] | None

    @property
    def averaged(self) -> nn.Module | None: ...

    @property
    def parts(self) -> dict[str, Any]: ...

    @property
    def steps(self) -> int: ...

    def epoch(self, number: int, name: str) -> Found:
        """Train one epoch.

        :param name: of the bar that shows how far this is
        :return: ``loss``, ``lr`` at the end, ``sparsity``, and what else there is to tell
        """

    def after_epoch(self, number: int, found: Found) -> None:
        """Go on to the learning rate of the next epoch.

        :param found: by evaluating the model after this one
        """

    def skip_to(self, epoch: int, found: Found) -> None:
        """Go to the learning rate of an epoch, in a run whose optimizer begins anew.

        :param found: by evaluating the model after the epoch before
        """


class _RunSettings(Protocol):
    @property
    def run(self) -> RunSettings: ...

    def values(self, *changing: Changes) -> dict[str, Any]:
        """Return name → value, as :meth:`sparseml.run.settings.Settings.values` does."""


class OneShotRunSettings(_RunSettings, Protocol):
    """What a one-shot run reads of its settings."""

    sweep: SweepSettings


class TrainingRunSettings(_RunSettings, Protocol):
    """What a training run reads of its settings."""

    checkpoints: CheckpointSettings


class Glue(Protocol):
    """What is known of one trainer, and of the models and data that it trains."""

    def one_shot_settings(self, argv: Sequence[str], prog: str | None) -> OneShotRunSettings:
        """Return the settings of a one-shot run; this must not import torch.

        :param prog: what the command is called in its help
        :raises RunError: for flags or a configuration file that cannot be used
        """

    def training_settings(self, argv: Sequence[str], prog: str | None) -> TrainingRunSettings:
        """Return the settings of a training run, likewise."""

    def open_session(self, settings: Any, where: Processes) -> Session:
        """Load the model and find the data, by settings of either kind.

        :raises RunError: if there is no such model or data, or they do not fit together
        """

    def set_up_training(
        self, session: Any, settings: Any, loggers: list[Any], log: LogStep
    ) -> Training:
        """Check that recipe, model and run fit, and build all that training takes.

        :param session: that :meth:`open_session` gave
        :param loggers: for the modifiers; it may be filled later
        :param log: for the loop
        :raises RunError: for what does not fit, before anything is computed
        """
