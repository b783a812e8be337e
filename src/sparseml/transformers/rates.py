"""Learning rates that a recipe sets, and groups that it adds, beside the scheduler of a Trainer."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any

from sparseml.pytorch.sparsification.distillation.hidden_group import DISTILL_PARAM_GROUP_KEY
from sparseml.pytorch.utils.optimizers import (
    get_optim_groups_learning_rates,
    set_optim_learning_rate,
)
from sparseml.transformers.errors import CallbackError

_LOGGER = logging.getLogger(__name__)


class Rates:
    """Guards what a recipe does to an optimizer's groups from the scheduler of the Trainer.

    If the recipe sets learning rates, they hold, and the scheduler steps without effect. Groups
    that modifiers have added, which the scheduler does not know, follow the highest of its rates.

    :param scheduler: of the Trainer
    :param modifiers: those that set learning rates
    :param recipe: its name, for messages
    :raises CallbackError: for a scheduler that goes by metrics, where the recipe sets rates
    """

    def __init__(
        self, optimizer: Any, scheduler: Any, modifiers: Sequence[Any], recipe: str
    ) -> None:
        self._optimizer, self._scheduler = optimizer, scheduler
        self._of_recipe = bool(modifiers)
        self._rates: list[float] = []
        self._hidden: list[dict[str, Any]] = []
        if not modifiers:
            return
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
        for index, group in enumerate(self._optimizer.param_groups if self._of_recipe else ()):
            rate = group.get("initial_lr", group["lr"])
            set_optim_learning_rate(self._optimizer, float(rate), [index])

    def before_scheduler(self) -> None:
        """Keep the rates that the optimizer has stepped with, and hide what the scheduler must not
        see."""
        groups = self._optimizer.param_groups
        self._hidden = [group for group in groups if group.get(DISTILL_PARAM_GROUP_KEY)]
        if self._of_recipe:
            self._rates = get_optim_groups_learning_rates(self._optimizer)
            self._scheduler._last_lr = list(self._rates)  # what the Trainer logs
        groups[:] = [group for group in groups if not group.get(DISTILL_PARAM_GROUP_KEY)]

    def after_scheduler(self) -> None:
        """Put all back."""
        rates = self._rates
        if self._hidden and not rates:
            shown = get_optim_groups_learning_rates(self._optimizer)
            rates = shown + [max(shown)] * len(self._hidden)
        self._optimizer.param_groups.extend(self._hidden)
        for param in (param for group in self._hidden for param in group["params"]):
            param.grad = None  # the Trainer clears the gradients of the model only
        self._hidden = []
        for index, rate in enumerate(rates):
            set_optim_learning_rate(self._optimizer, rate, [index])
        if self._of_recipe:
            self._scheduler._last_lr = list(rates)
