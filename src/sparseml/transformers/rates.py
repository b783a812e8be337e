"""Learning rates that a recipe sets, against the scheduler that a Trainer has in any case."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from sparseml.pytorch.utils.optimizers import (
    get_optim_groups_learning_rates,
    set_optim_learning_rate,
)
from sparseml.transformers.errors import CallbackError

_LOGGER = logging.getLogger(__name__)


class RecipeRates:
    """Lets the rates of a recipe hold; the scheduler goes on stepping, without effect.

    :param scheduler: of the Trainer
    :param modifiers: those that set learning rates
    :param recipe: its name, for messages
    :raises CallbackError: for a scheduler that goes by metrics, as it steps at other times
    """

    def __init__(self, optimizer: Any, scheduler: Any, modifiers: Any, recipe: str) -> None:
        self._optimizer, self._scheduler = optimizer, scheduler
        self._rates = get_optim_groups_learning_rates(optimizer)
        names = " and ".join(sorted({type(modifier).__name__ for modifier in modifiers}))
        told = type(scheduler).__name__
        if "metrics" in inspect.signature(scheduler.step).parameters:
            raise CallbackError(
                f"{names} of {recipe} sets the learning rate, and so does {told}, by metrics: take "
                "another lr_scheduler_type, or leave that modifier out"
            )
        _LOGGER.warning(
            "%s of %s sets the learning rate; lr_scheduler_type and warm-up (%s) are without "
            "effect, and learning_rate holds until the recipe sets another",
            names, recipe, told,
        )  # fmt: skip

    def begin(self) -> None:
        """Take back what the scheduler has done to the rates already, as a warm-up does."""
        for index, group in enumerate(self._optimizer.param_groups):
            rate = group.get("initial_lr", group["lr"])
            set_optim_learning_rate(self._optimizer, float(rate), [index])

    def keep(self) -> None:
        """Remember the rates that an optimizer step was taken with, before the scheduler steps."""
        self._rates = get_optim_groups_learning_rates(self._optimizer)
        self._scheduler._last_lr = list(self._rates)  # what the Trainer logs

    def put_back(self) -> None:
        """Undo what the scheduler did since."""
        for index, rate in enumerate(self._rates):
            set_optim_learning_rate(self._optimizer, rate, [index])
        self._scheduler._last_lr = list(self._rates)
