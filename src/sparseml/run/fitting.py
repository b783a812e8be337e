"""Whether a recipe, a model and a run fit together, found out before anything is computed."""

from __future__ import annotations

import logging
import math
from typing import Any

from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.run.errors import RunError, one_line

__all__ = ["epochs_to_run", "load_recipe", "require_fitting_patterns", "require_fitting_schedule"]

_LOGGER = logging.getLogger(__name__)
_DEFAULT_EPOCHS = 300


def load_recipe(path: str, variables: str | dict[str, Any] | None) -> ScheduledModifierManager:
    """Return the manager of a recipe.

    :raises RecipeError: if anything is wrong with it
    """
    return ScheduledModifierManager.from_yaml(path, recipe_variables=variables)


def require_fitting_patterns(
    manager: ScheduledModifierManager, model: nn.Module, recipe: str
) -> None:
    """Check that every modifier finds its parameters in the model.

    :raises RunError: naming the modifier and the pattern that catches nothing
    """
    for modifier in manager.iter_modifiers():
        if not modifier.selecting_entries():
            continue
        try:
            modifier.selects(model)
        except (RuntimeError, ValueError) as error:
            hint = ""
            if "[qkv]" in str(error) or ".q." in str(error):
                hint = "; --split-qkv gives attention separate layers q, k and v"
            raise RunError(
                f"{recipe}: {type(modifier).__name__}: {one_line(error)}{hint}"
            ) from error


def epochs_to_run(
    manager: ScheduledModifierManager, asked: int | None, insists: bool, recipe: str
) -> int:
    """Return how many epochs to train for: a recipe that sets learning rates also sets the epochs.

    :param asked: the setting ``epochs``, if there is one
    :param insists: whether that was given on the command line
    :raises RunError: if the recipe goes on for longer
    """
    needed = manager.max_epochs
    if manager.learning_rate_modifiers and needed > 0 and not insists:
        return needed
    if asked is None:
        return needed if needed > 0 else _DEFAULT_EPOCHS
    if needed > asked:
        raise RunError(f"{recipe} takes {needed} epochs, --epochs {asked} ends before")
    if asked < 1:
        raise RunError(f"--epochs must be at least 1, found {asked}")
    return asked


def require_fitting_schedule(
    manager: ScheduledModifierManager, steps_per_epoch: int, epochs: int, recipe: str
) -> None:
    """Check that the run reaches all that the recipe asks for.

    A modifier that never acts in the run is an error. One that stops short of its final sparsity,
    as when it ends just when the run does, is warned of.

    :raises RunError: naming the modifier
    """
    steps = epochs * steps_per_epoch
    for modifier in manager.pruning_modifiers:
        name = type(modifier).__name__
        updates = list(modifier.schedule.updates(steps_per_epoch, steps))
        if not updates:
            raise RunError(
                f"{recipe}: {name} starts at epoch {modifier.start_epoch:g} and never acts in a "
                f"run of {epochs} epochs of {steps_per_epoch} steps"
            )
        reached = _highest(modifier, updates[-1].epoch, steps_per_epoch)
        final = _highest(modifier, math.inf, steps_per_epoch)
        if reached is not None and final is not None and reached < final - 1e-6:
            _LOGGER.warning(
                "%s: %s prunes for the last time at epoch %g, to %.4g instead of %.4g: let it end "
                "before the run does",
                recipe, name, updates[-1].epoch, reached, final,
            )  # fmt: skip


def _highest(modifier: Any, epoch: float, steps_per_epoch: int) -> float | None:
    asked = modifier.get_applied_sparsity_for_epoch(epoch, steps_per_epoch)
    values = asked if isinstance(asked, (list, tuple)) else [asked]
    numbers = [value for value in values if isinstance(value, (int, float))]
    return max(numbers, default=None)
