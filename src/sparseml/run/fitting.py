"""Whether a recipe, a model and a run fit together, and what it takes, told before it begins."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.optim.summary import steps_to
from sparseml.pytorch.sparsification.planning import Prunes, asked_sparsities
from sparseml.pytorch.sparsification.pruning import CAPruningModifier
from sparseml.pytorch.sparsification.pruning.settings.effort import set_effort
from sparseml.pytorch.sparsification.pruning.settings.processor import (
    fast_bfloat16,
    tell_without_numba,
)
from sparseml.run.errors import RunError, one_line
from sparseml.run.progress import say
from sparseml.run.session import Session
from sparseml.run.settings.groups import RunSettings
from sparseml.sparsification.types import SparsificationTypes

_LOGGER = logging.getLogger(__name__)
_DEFAULT_EPOCHS = 300
_TIMED = 8
_MANY = 100_000  # inputs of one estimate


def load_recipe(
    path: str, variables: str | dict[str, Any] | None, effort: str | None = None
) -> ScheduledModifierManager:
    """Return the manager of a recipe.

    :param effort: for the modifiers that prune by second-order information, instead of their own
    :raises RecipeError: if anything is wrong with it
    :raises RunError: for an effort without such a modifier
    """
    manager = ScheduledModifierManager.from_yaml(path, recipe_variables=variables)
    if effort is not None:
        known = [one for one in manager.iter_modifiers() if set_effort(one, effort)]
        if not known:
            raise RunError(
                f"--effort {effort}: {path} has no modifier with an effort, such as "
                f"{CAPruningModifier.__name__}"
            )
        for one in known:
            one.effort = effort  # nothing is left that it would warn of, as it was asked for
    return manager


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
            joined = any(name.endswith(".qkv") for name, _ in model.named_modules())
            if joined and ("[qkv]" in str(error) or ".q." in str(error)):
                hint = "; --split-qkv gives attention separate layers q, k and v"
            raise RunError(
                f"{recipe}: {type(modifier).__name__}: {one_line(error)}{hint}"
            ) from error


@contextmanager
def attaching(recipe: str) -> Iterator[None]:
    """Raise what modifiers refuse as they are given a model, as RunErrors that name the recipe."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise RunError(f"{recipe}: {one_line(error)}") from error


def require_steady_shapes(
    manager: ScheduledModifierManager, recipe: str, several: bool = False, averages: bool = False
) -> None:
    """Check that nothing has to go on with parameters that a modifier makes smaller.

    :param several: whether several processes train the model together
    :param averages: whether a moving average of the weights is kept
    :raises RunError: naming the modifier, and what to do
    """
    for modifier in manager.iter_modifiers():
        name = f"{recipe}: {type(modifier).__name__}"
        if modifier.resizes and several:
            raise RunError(
                f"{name} takes parts out of the model in the middle of training, which several "
                "processes cannot do together: start one"
            )
        changes = SparsificationTypes.structured in modifier.sparsification_types
        if averages and (modifier.resizes or changes):
            raise RunError(
                f"{name} takes parts out of the model in the middle of training, which a moving "
                "average of its weights cannot follow: leave out --model-ema"
            )


def epochs_to_run(
    manager: ScheduledModifierManager,
    asked: int | None,
    insists: bool,
    recipe: str,
    flag: str = "--epochs",
) -> int:
    """Return how many epochs to train for: a recipe that sets learning rates also sets the epochs.

    :param asked: the setting ``epochs``, if there is one
    :param insists: whether that was given on the command line
    :param flag: of the setting, for errors
    :raises RunError: if the recipe goes on for longer
    """
    needed = manager.max_epochs
    if manager.learning_rate_modifiers and needed > 0 and not insists:
        return needed
    if asked is None:
        return needed if needed > 0 else _DEFAULT_EPOCHS
    if needed > asked:
        raise RunError(f"{recipe} takes {needed} epochs, {flag} {asked} ends before")
    if asked < 1:
        raise RunError(f"{flag} must be at least 1, found {asked}")
    return asked


def require_fitting_schedule(
    manager: ScheduledModifierManager, steps_per_epoch: int, epochs: float, recipe: str
) -> None:
    """Check that the run reaches all that the recipe asks for.

    A modifier that never acts in the run is an error. One that stops short of its final sparsity,
    as when it ends just when the run does, is warned of.

    :raises RunError: naming the modifier
    """
    steps = steps_to(epochs, steps_per_epoch)
    for modifier in manager.pruning_modifiers:
        name = type(modifier).__name__
        updates = list(modifier.schedule.updates(steps_per_epoch, steps))
        if not updates:
            raise RunError(
                f"{recipe}: {name} starts at epoch {modifier.start_epoch:g} and never acts in a "
                f"run of {epochs:g} epochs of {steps_per_epoch} steps"
            )
        if not isinstance(modifier, Prunes):  # it removes whole layers, or what is pruned already
            continue
        reached = _highest(modifier, updates[-1].epoch, steps_per_epoch)
        final = _highest(modifier, math.inf, steps_per_epoch)
        if reached is not None and final is not None and reached < final - 1e-6:
            _LOGGER.warning(
                "%s: %s prunes for the last time at epoch %g, to %.4g instead of %.4g: let it end "
                "before the run does",
                recipe, name, updates[-1].epoch, reached, final,
            )  # fmt: skip


def _highest(modifier: Prunes, epoch: float, steps_per_epoch: int) -> float | None:
    asked = asked_sparsities(modifier, epoch, steps_per_epoch)
    return max((one for one in asked if one is not None), default=None)


def foretell(
    manager: Any, session: Session, run: RunSettings, steps_per_epoch: int = 1, steps: int = 1
) -> int:
    """Say how much the pruners of a recipe will sample, and warn of what makes a run slow.

    How much memory they take they log themselves, as soon as they see the model.

    :param steps: optimizer steps of the run; one in one shot
    :return: how many batches the first estimate samples
    """
    cpu = session.where.device.type == "cpu"
    if cpu and run.amp and run.amp_dtype != "float16" and not fast_bfloat16():
        _LOGGER.warning(
            "--amp: this processor has no instructions for bfloat16 and may take ten times as "
            "long as without --amp"
        )
    samplers = [one for one in manager.pruning_modifiers if _gradients(one)]
    eliminating = any(isinstance(one, CAPruningModifier) for one in samplers)
    if cpu and eliminating:
        tell_without_numba()
    first = 0
    for modifier in samplers:
        updates = len(list(modifier.schedule.updates(steps_per_epoch, steps)))
        per_sample = getattr(modifier, "fisher_samples", "batch") != "batch"
        batches = math.ceil(_gradients(modifier) / (session.gradient_batch if per_sample else 1))
        say(_cost(modifier, session, batches, max(1, updates)), session.where.is_first)
        inputs = batches * session.gradient_batch
        if inputs > _MANY and not per_sample and session.where.is_first:
            _LOGGER.warning(
                "%s: %s inputs for an estimate are many: fisher_samples: auto takes one gradient "
                "of each, %s in all; or use smaller batches, --gs-batch-size 16",
                type(modifier).__name__, f"{inputs:,}", f"{_gradients(modifier):,}",
            )  # fmt: skip
        first = first or batches
    return first


def timed_sampler(sampler: dict[str, Any], batches: int, shown: bool = True) -> dict[str, Any]:
    """Return a ``grad_sampler`` that says after a few batches how long all of them will take."""
    seen, began = 0, 0.0

    def count() -> None:
        nonlocal seen, began
        if seen == 0:
            began = time.monotonic()
        elif seen == _TIMED and batches > 4 * _TIMED:
            seconds = (time.monotonic() - began) / _TIMED * batches
            say(f"sampling gradients takes about {_duration(seconds)}", shown)
        seen += 1

    return {**sampler, "after_batch": count}


def _gradients(modifier: Any) -> int:
    """Return how many gradients a pruner samples at a time, at most; 0 for one that does not."""
    kind = getattr(modifier, "score_type", "retrain_free")  # of the scores of snip_momentum
    if getattr(modifier, "use_gradient_buffering", False) or kind != "retrain_free":
        return 0
    count = getattr(modifier, "num_grads", 0)
    return int(max(count.values()) if isinstance(count, Mapping) else count or 0)


def _cost(modifier: Any, session: Session, batches: int, updates: int) -> str:
    times = updates * getattr(modifier, "num_recomputations", 1)
    inputs = batches * session.gradient_batch
    passes = inputs / max(1, session.training_size)
    return (
        f"{type(modifier).__name__}: {_gradients(modifier):,} gradients of {batches:,} batches of "
        f"{session.gradient_batch}, {inputs:,} inputs, {passes:.3g} passes over the training data"
        + (f", {times} times" if times > 1 else "")
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
