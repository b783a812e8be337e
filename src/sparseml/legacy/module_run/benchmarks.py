"""Measuring how long a module takes for batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sparseml.legacy.helpers.layers import device_to_name_ids, model_to_device
from sparseml.legacy.helpers.tensors import tensors_to_device, tensors_to_precision
from sparseml.legacy.module_run.parts import infinite_data_loader
from sparseml.pytorch.utils.tensors.nested import tensors_batch_size, tensors_module_forward

__all__ = ["BatchBenchmarkResults", "ModuleBenchmarker"]

_Get = Callable[[Any], Any]


def _seconds(kind: str, item: bool = False) -> _Get:
    def mean(results: Any) -> float:
        taken = results._taken[kind]
        return (statistics.fmean(taken) if taken else 0.0) / (results.batch_size if item else 1)

    return mean


def _rate(kind: str, item: bool = False) -> _Get:
    seconds = _seconds(kind, item)
    return lambda results: 1.0 / seconds(results) if seconds(results) else 0.0


@dataclass(frozen=True, eq=False, repr=False)
class BatchBenchmarkResults:
    """Timings of batches of ``batch_size`` samples each, in seconds.

    ``model_*`` covers the forward pass alone, ``e2e_*`` also moving the batch to the device and
    the result back; means and rates are 0 without timings.
    """

    batch_size: int
    _taken: dict[str, list[float]] = field(
        init=False, default_factory=lambda: {"model": [], "e2e": []}
    )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(batch_size={self.batch_size}, "
            f"model_batch_seconds={self.model_batch_seconds}, "
            f"e2e_batch_seconds={self.e2e_batch_seconds})"
        )

    def add(self, model_sec: float, e2e_sec: float, batch_size: int) -> None:
        """Add the timings of one batch; a ValueError if it has another size."""
        if batch_size != self.batch_size:
            raise ValueError(f"batch_size must be {self.batch_size}, found {batch_size}")
        self._taken["model"].append(model_sec)
        self._taken["e2e"].append(e2e_sec)

    model_batch_timings = property(lambda self: self._taken["model"])
    e2e_batch_timings = property(lambda self: self._taken["e2e"])
    model_batch_seconds = property(_seconds("model"))
    e2e_batch_seconds = property(_seconds("e2e"))
    model_batches_per_second = property(_rate("model"))
    e2e_batches_per_second = property(_rate("e2e"))
    model_item_seconds = property(_seconds("model", item=True))
    e2e_item_seconds = property(_seconds("e2e", item=True))
    model_items_per_second = property(_rate("model", item=True))
    e2e_items_per_second = property(_rate("e2e", item=True))


class ModuleBenchmarker:
    """Measures a module; it is left in eval mode on the device of the last measurement."""

    def __init__(self, module: nn.Module):
        self._module = module

    def run_batches_on_device(
        self,
        batches: Iterable[Any],
        device: str,
        full_precision: bool = True,
        test_size: int = 100,
        warmup_size: int = 10,
    ) -> BatchBenchmarkResults:
        """Time ``test_size`` forward passes, after ``warmup_size`` that are not counted.

        :param batches: batches of one size, repeated as often as needed
        :param full_precision: float32; otherwise module and batches are turned to float16
        :raises ValueError: without batches, or for a device that is not available
        """
        cached = list(batches)
        if not cached:
            raise ValueError("batches must hold at least one batch, found none")
        device_to_name_ids(device)
        module, name, _ = model_to_device(self._module, device)
        module = (module if full_precision else module.half()).eval()
        results = BatchBenchmarkResults(tensors_batch_size(cached[0]))
        source = infinite_data_loader(cached)
        with torch.no_grad():
            for index in range(warmup_size + test_size):
                batch = tensors_to_precision(next(source), full_precision)
                timings = _time_batch(module, batch, name)
                if index >= warmup_size:
                    results.add(*timings, tensors_batch_size(batch))
        return results


def _time_batch(module: nn.Module, batch: Any, device: Any) -> tuple[float, float]:
    """Return seconds of the forward pass and of the whole."""
    on_gpu = torch.device(device).type == "cuda"

    def now() -> float:
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter()

    start = time.perf_counter()
    moved = tensors_to_device(batch, device)
    before = now()
    output = tensors_module_forward(moved, module)
    after = now()
    tensors_to_device(output, "cpu")
    return after - before, time.perf_counter() - start
