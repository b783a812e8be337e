"""Floating-point operations of a forward pass, with and without those on zeros."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.tensors.nested import tensors_batch_size, tensors_module_forward
from sparseml.pytorch.utils.tensors.stats import tensor_list_sparsity
from sparseml.report.schema import Flops

__all__ = ["count_flops"]


def count_flops(model: nn.Module, inputs: Any) -> Flops:
    """Count the operations of one forward pass with ``torch.utils.flop_counter``.

    Counted are matrix products, convolutions and attention; a multiplication and an addition are
    two operations. ``sparse`` leaves out the share that falls to weights that are zero: what a
    kernel would do that skips every zero, not what a dense kernel does. Weights that are computed
    anew from parameters (parametrizations, autocast) count as dense.

    :param inputs: a batch: tensor, or tuple, list or dict of tensors that the model is called with
    """
    root = unwrap_module(model, root=True)
    zeros = _OperationsOnZeros(root.parameters())
    counter = FlopCounterMode(display=False)
    # the counter breaks operations down, and hands on to the other what it counts
    with evaluating(root), torch.inference_mode(), _slow_attention(), zeros, counter:
        tensors_module_forward(inputs, root, check_feat_lab_inp=False)
    total = counter.get_total_flops()
    sparse = total - round(zeros.operations)
    return Flops(dense=total, sparse=sparse, batch_size=tensors_batch_size(inputs))


class _OperationsOnZeros(TorchDispatchMode):
    """Adds up the share of each operation that falls to zeros in an operand that is a parameter,
    or a view of one."""

    def __init__(self, params: Iterable[Tensor]) -> None:
        super().__init__()
        self.operations = 0.0
        self._weights = {_memory(param) for param in params if param.ndim > 1}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            operands = [arg for arg in args if isinstance(arg, Tensor) and arg.ndim > 1]
            weights = [arg for arg in operands if _memory(arg) in self._weights]
            if weights:
                whole = formula(*args, **(kwargs or {}), out_val=out)
                self.operations += whole * tensor_list_sparsity(weights[:1])
        return out


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Keep torch from running layers, or attention, as one operation that it does not count."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):  # torch 2.14 does not count its fused one on the CPU
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)
