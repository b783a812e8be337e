"""What the benchmarks share: timing things in turn, and writing down where and what was found."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
RESULTS = Path(__file__).parent / "results"


def take_turns(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    clock: str = "wall",
) -> dict[str, list[float]]:
    """Seconds that each function took in each round.

    In every round each function runs once, each round beginning with another one, so that a
    machine that slows down, or what a function leaves in the caches, meets all of them alike.

    :param clock: one of ``CLOCKS``; ``cpu`` (of this process, all threads) hardly notices what else
        the machine is doing, and is meant for a single thread, as waiting threads may spin
    """
    now = CLOCKS[clock]
    names = list(functions)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warmup, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = now()
            functions[name]()
            if number >= 0:
                taken[name].append(now() - start)
    return taken


def ratios(taken: Mapping[str, list[float]], base: str) -> dict[str, tuple[float, float, float]]:
    """Lower quartile, median and upper quartile of how long each took against ``base``.

    Times are compared within a round, where the machine was the same for both.
    """
    found = {}
    for name, times in taken.items():
        low, middle, high = quantiles([a / b for a, b in zip(times, taken[base], strict=True)], n=4)
        found[name] = (low, middle, high)
    return found


def medians(taken: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each function's seconds."""
    return {name: median(times) for name, times in taken.items()}


def environment() -> dict[str, Any]:
    """The machine and software that numbers were taken with."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def write_result(name: str, content: Mapping[str, Any]) -> Path:
    """Write ``results/<name>.json`` with the environment added."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), **content}, indent=2) + "\n")
    return path
