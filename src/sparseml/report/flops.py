"""Floating-point operations of a forward pass, with and without those on zeros."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.tensor_stats import tensor_list_sparsity
from sparseml.pytorch.utils.tensors import tensors_batch_size, tensors_module_forward
from sparseml.report.latency import evaluating
from sparseml.report.schema import Flops

__all__ = ["count_flops"]

# operations of a weight and an activation; the others (attention) have no weight in them
_WITH_WEIGHTS = ("mm", "addmm", "_scaled_mm", "convolution", "_convolution", "cudnn_convolution")


def count_flops(model: nn.Module, inputs: Any) -> Flops:
    """Count the operations of one forward pass with ``torch.utils.flop_counter``.

    Counted are matrix products, convolutions and attention; a multiplication and an addition are
    two operations. ``sparse`` leaves out the share that falls to weights that are zero: what a
    kernel would do that skips every zero, not what a dense kernel does.

    :param inputs: a batch: tensor, or tuple, list or dict of tensors that the model is called with
    """
    root = unwrap_module(model, root=True)
    counter = FlopCounterMode(display=False)
    with evaluating(root), torch.inference_mode(), _slow_attention(), counter:
        tensors_module_forward(inputs, root, check_feat_lab_inp=False)
    saved = sum(
        operations * tensor_list_sparsity(weights)
        for operations, weights in _weighted_operations(root, counter.get_flop_counts())
    )
    total = counter.get_total_flops()
    return Flops(dense=total, sparse=total - round(saved), batch_size=tensors_batch_size(inputs))


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Keep torch from running whole Transformer layers as one operation that it does not count."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


def _weighted_operations(
    root: nn.Module, counts: Mapping[str, Mapping[Any, int]]
) -> Iterator[tuple[int, list[Tensor]]]:
    """For every layer that was called: its own operations with weights, and those weights."""
    top = type(root).__name__
    layers = {f"{top}.{name}" if name else top: layer for name, layer in root.named_modules()}
    own: dict[str, int] = defaultdict(int)
    weights: dict[str, list[Tensor]] = defaultdict(list)
    for name in counts.keys() & layers.keys():
        operations = _with_weights(counts[name])
        own[name] += operations
        above = _nearest_called(name.rpartition(".")[0], counts)
        if above:
            own[above] -= operations
    for name, layer in layers.items():
        # a layer that is not called itself lends its weights to the one above (attention's
        # output projection)
        owner = _nearest_called(name, counts)
        if owner:
            weights[owner] += [p for p in layer.parameters(recurse=False) if p.ndim > 1]
    for name, operations in own.items():
        yield operations, weights[name]


def _with_weights(counts: Mapping[Any, int]) -> int:
    return sum(n for operation, n in counts.items() if operation.__name__ in _WITH_WEIGHTS)


def _nearest_called(name: str, counts: Mapping[str, Any]) -> str:
    while name and name not in counts:
        name = name.rpartition(".")[0]
    return name
