"""What pruning gained and what it did not: zeros, bytes, milliseconds."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from statistics import quantiles

import torch
from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.utils import get_named_layers_and_params_by_regex, tensor_list_sparsity


def sparsity(model: Module, patterns: list[str]) -> float:
    """The fraction of zeros among the parameters that the patterns match."""
    found = get_named_layers_and_params_by_regex(model, patterns, params_strict=True)
    return tensor_list_sparsity([match.param for match in found])


def state_bytes(model: Module) -> tuple[int, int]:
    """Size of the state dict in bytes: as it is, and compressed by zlib at its best (level 9)."""
    raw = b"".join(t.contiguous().numpy().tobytes() for t in model.state_dict().values())
    return len(raw), len(zlib.compress(raw, level=9))


@torch.inference_mode()
def latencies(
    models: Mapping[str, Module], images: Tensor, rounds: int
) -> dict[str, tuple[float, float, float]]:
    """Milliseconds that a forward pass over ``images`` takes: lower quartile, median, upper.

    The models take turns, so that whatever else slows the machine down slows all of them.
    """
    for model in models.values():
        model.eval()
        model(images)
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            start = time.perf_counter()
            model(images)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: tuple(quantiles(taken, n=4)) for name, taken in times.items()}
