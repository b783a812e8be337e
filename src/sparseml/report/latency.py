"""How long models take for a batch."""

from __future__ import annotations

import random
import time
import timeit
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy
import torch
from torch import nn

from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.tensors.nested import (
    device_of,
    tensors_batch_size,
    tensors_module_forward,
)
from sparseml.report.schema import Latency

_QUARTILES = (0.25, 0.5, 0.75)
_QUANTILES = (0.0, *_QUARTILES, 1.0)
_DRIFT = 0.05
WARMUP = 5
"""Rounds before those that count."""


def measure_latency(
    models: Mapping[str, nn.Module],
    inputs: Any,
    rounds: int = 40,
    warmup: int = WARMUP,
    seconds: float = 3.0,
    advance: Callable[[int, str], None] | None = None,
) -> dict[str, Latency]:
    """Time the forward pass of every model over one batch.

    The models take turns, in another order each round, so that whatever else slows the machine
    down slows all of them; the first ``warmup`` rounds are not counted. After ``rounds`` there are
    more until the quartiles of each model have settled: those of the earlier half of its rounds and
    those of the later half differ by no more than 5% of its median. The models run in eval mode and
    without gradients, and end in the modes they had. Settings such as ``torch.set_num_threads`` are
    the caller's.

    :param models: name → model, all on the device of ``inputs``
    :param inputs: a batch: tensor, or tuple, list or dict of tensors that the models are called
        with; the first dimension is the batch
    :param rounds: how often each model is timed at least, 2 or more
    :param warmup: rounds before
    :param seconds: after which no more than ``rounds`` are taken, settled or not
    :param advance: called after each round with how many are done of those known to come, ``warmup
        + rounds``, and what is to be told; of further rounds with all of these
    :return: name → median, quartiles and extremes in milliseconds, samples per second at the
        median, and whether the quartiles of all models have settled
    :raises ValueError: for no models, too few rounds or negative ``warmup``
    """
    if not models or rounds < 2 or warmup < 0:
        raise ValueError(
            "measure_latency needs at least one model, rounds >= 2 and warmup >= 0, "
            f"found {len(models)} models, rounds={rounds}, warmup={warmup}"
        )
    device, end = device_of(inputs), time.perf_counter() + seconds
    taken: dict[str, list[float]] = {name: [] for name in models}
    order, shuffled = list(models.items()), random.Random(0)
    left, settled, done = warmup + rounds, False, 0
    with evaluating(*models.values()), torch.inference_mode():
        while left:
            shuffled.shuffle(order)
            for name, model in order:
                _synchronize(device)
                # which keeps the garbage collector from running meanwhile
                once = partial(_forward, model, inputs, device)
                taken[name].append(timeit.timeit(once, timer=time.perf_counter, number=1))
            left, done = left - 1, done + 1
            if advance is not None:
                more = done - warmup - rounds
                advance(min(done, warmup + rounds), f"{more} more to settle" if more > 0 else "")
            if not left:
                settled = all(_settled(times[warmup:]) for times in taken.values())
                counted = min(map(len, taken.values())) - warmup
                late = settled or time.perf_counter() > end
                left = 0 if late else max(rounds, counted // 4)
    batch = tensors_batch_size(inputs)
    return {
        name: _summary(times[warmup:], batch, device, warmup, settled)
        for name, times in taken.items()
    }


def _settled(times: list[float]) -> bool:
    half = len(times) // 2
    earlier, later = (numpy.quantile(part, _QUARTILES) for part in (times[:half], times[half:]))
    return bool(abs(later - earlier).max() <= _DRIFT * numpy.median(times))


def _forward(model: nn.Module, inputs: Any, device: torch.device) -> None:
    tensors_module_forward(inputs, model, check_feat_lab_inp=False)
    _synchronize(device)


def _summary(
    times: list[float], batch: int, device: torch.device, warmup: int, settled: bool
) -> Latency:
    fastest, lower, median, upper, slowest = 1000 * numpy.quantile(times, _QUANTILES)
    return Latency(
        batch_size=batch,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        rounds=len(times),
        warmup=warmup,
        median_ms=median,
        lower_quartile_ms=lower,
        upper_quartile_ms=upper,
        fastest_ms=fastest,
        slowest_ms=slowest,
        samples_per_second=1000 * batch / median,
        settled=settled,
    )


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
