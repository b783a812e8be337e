"""Whether a recipe and the run of a Trainer fit together, told before anything is trained."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from transformers import TrainerState, TrainingArguments

from sparseml.pytorch.optim.summary import steps_to
from sparseml.run.errors import RunError
from sparseml.run.fitting import require_fitting_patterns, require_fitting_schedule
from sparseml.transformers.errors import CallbackError


def steps_in_epoch(loader: Any, args: TrainingArguments, state: TrainerState) -> int:
    """Return the optimizer steps of an epoch, as the Trainer counts them.

    Of data without a length all steps of the run make one epoch.
    """
    try:
        batches = len(loader)
    except TypeError:
        return state.max_steps
    return max(1, -(-batches // args.gradient_accumulation_steps))


def require_supported(args: TrainingArguments, model: nn.Module) -> None:
    """Check that the Trainer trains in a way that modifiers can follow.

    :raises CallbackError: naming what they cannot
    """
    refused = {
        "DeepSpeed, which keeps weights and optimizer to itself": bool(args.deepspeed),
        "FSDP1, which flattens weights; FSDP2 does not (fsdp_version 2)": any(
            type(part).__name__ == "FullyShardedDataParallel" for part in model.modules()
        ),
        f"optim={str(getattr(args.optim, 'value', args.optim))!r}, which has no step": "lomo"
        in str(args.optim).lower(),
        "torch.nn.DataParallel; start one process per GPU (torchrun, accelerate launch)": (
            args.n_gpu > 1
        ),
    }
    for what, is_so in refused.items():
        if is_so:
            raise CallbackError(f"SparseMLCallback does not work with {what}")


def require_fitting_model(manager: Any, model: nn.Module, recipe: str) -> None:
    """Check that every modifier finds what it is for in the model, in a CallbackError's words."""
    try:
        require_fitting_patterns(manager, model, recipe)
    except Exception as error:
        raise CallbackError(f"{error} ({type(model).__name__})") from error


def require_fitting_length(
    manager: Any, steps_per_epoch: int, state: TrainerState, recipe: str
) -> None:
    """Check that the run is long enough for all that the recipe asks for.

    :param manager: whose steps are resolved
    :raises CallbackError: if the recipe goes on for longer, or a modifier never acts
    """
    bounds = [
        getattr(modifier, field, -1.0)
        for modifier in manager.iter_modifiers()
        for field in ("start_epoch", "end_epoch")
    ]
    epochs, steps = max(bounds, default=-1.0), state.max_steps
    needed = steps_to(epochs, steps_per_epoch)
    if needed > steps:
        raise CallbackError(
            f"{recipe} goes on until epoch {epochs:g}, for {needed} steps of which "
            f"{steps_per_epoch} make an epoch, but the run ends after {steps} steps (epoch "
            f"{steps / steps_per_epoch:g}): give num_train_epochs={math.ceil(epochs)} without "
            "max_steps, or a shorter recipe"
        )
    try:
        require_fitting_schedule(manager, steps_per_epoch, steps / steps_per_epoch, recipe)
    except RunError as error:
        raise CallbackError(str(error)) from error
