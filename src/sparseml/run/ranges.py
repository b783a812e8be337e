"""Which values the numbers among the flags may have."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from typing import Any

from sparseml.run.errors import RunError

__all__ = ["require_ranges"]

_AT_LEAST_1 = [
    "val_batch_size",
    "gs_batch_size",
    "batch_size",
    "grad_accum_steps",
    "threads",
    "num_classes",
    "in_chans",
    "img_size",
    "input_size",
    "recount",
    "log_interval",
    "lr_base_size",
]
_AT_LEAST_0 = [
    "workers",
    "bn_retune",
    "latency_rounds",
    "mixup",
    "cutmix",
    "weight_decay",
    "lr",
    "lr_base",
    "min_lr",
    "warmup_lr",
    "warmup_epochs",
    "cooldown_epochs",
    "patience_epochs",
    "mixup_off_epoch",
    "color_jitter",
    "aug_repeats",
]
_FRACTIONS = [
    "hflip",
    "vflip",
    "reprob",
    "mixup_prob",
    "mixup_switch_prob",
    "drop_rate",
    "drop_path_rate",
    "momentum",
    "model_ema_decay",
    "distill_weight",
]
_BELOW_1 = ["smoothing", "sam_topk"]
_POSITIVE = ["timeout", "clip_grad", "crop_pct", "distill_temperature", "decay_rate", "layer_decay"]
_LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_AT_LEAST_1, (1, math.inf)),
    **dict.fromkeys(_AT_LEAST_0, (0, math.inf)),
    **dict.fromkeys(_FRACTIONS, (0, 1)),
    "seed": (0, 2**32 - 1),
}


def require_ranges(parser: ArgumentParser, args: Namespace) -> None:
    """Check the numbers among the settings; None is always allowed.

    :raises RunError: naming the flag, what was found and what is allowed
    """
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        flag = next((s for s in action.option_strings if s.startswith("--")), action.dest)
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                _check(flag, action.dest, number)


def _check(flag: str, name: str, number: Any) -> None:
    if name in _POSITIVE and not 0 < number < math.inf:
        raise RunError(f"{flag} must be greater than 0, found {number}")
    if name in _BELOW_1 and not 0 <= number < 1:
        raise RunError(f"{flag} must be at least 0 and less than 1, found {number}")
    if name not in _LIMITS:
        return
    low, high = _LIMITS[name]
    if not low <= number <= high:
        allowed = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        raise RunError(f"{flag} must be {allowed}, found {number}")
