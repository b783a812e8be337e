"""Learning rates that a recipe sets, beside fairseq's own scheduler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from sparseml.pytorch.utils.optimizers import (
    get_optim_groups_learning_rates,
    set_optim_learning_rate,
)

_LOGGER = logging.getLogger(__name__)


class Rates:
    """Lets the learning rates of a recipe, if it sets any, hold against fairseq's scheduler.

    :param state: of a checkpoint that the run goes on from
    """

    def __init__(
        self, trainer: Any, manager: Any, recipe: str, state: Mapping[str, Any] | None
    ) -> None:
        self._trainer, setting = trainer, manager.learning_rate_modifiers
        self._of_recipe = bool(setting)
        if not setting:
            return
        names = " and ".join(sorted({type(modifier).__name__ for modifier in setting}))
        _LOGGER.warning(
            "%s of %s sets the learning rate; --lr-scheduler and warm-up are without effect, and "
            "--lr holds until the recipe sets another", names, recipe,
        )  # fmt: skip
        found = None if state is None else state.get("rates")
        self._set(found or [trainer.cfg.optimization.lr[0]] * len(self._now()))

    def state(self) -> list[float] | None:
        """Return the learning rates to go on with; None if fairseq's scheduler knows them."""
        return self._now() if self._of_recipe else None

    def hook(self) -> None:
        """Put the rates back after each step of the scheduler."""
        for name in ("lr_step_update", "lr_step", "lr_step_begin_epoch"):
            if self._of_recipe:
                setattr(self._trainer, name, self._held(getattr(self._trainer, name)))

    def _held(self, scheduled: Callable[..., Any]) -> Callable[..., float]:
        from fairseq.logging import metrics

        @wraps(scheduled)
        def step(*args: Any, **kwargs: Any) -> float:
            rates = self._now()
            scheduled(*args, **kwargs)
            self._set(rates)
            metrics.log_scalar("lr", rates[0], weight=0, priority=300)
            return rates[0]

        return step

    def _now(self) -> list[float]:
        return get_optim_groups_learning_rates(self._trainer.optimizer.optimizer)

    def _set(self, rates: list[float]) -> None:
        for index, rate in enumerate(rates):
            set_optim_learning_rate(self._trainer.optimizer.optimizer, rate, [index])
