"""What a model is like: zeros of its layers, parameters, size, operations."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from sparseml.pytorch.sparsification.planning import Prunes, final_sparsities
from sparseml.pytorch.units.origins import origins_of
from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.params import distinct_params, prunable_params
from sparseml.pytorch.utils.tensors.nested import tensors_batch_size, tensors_module_forward
from sparseml.pytorch.utils.tensors.stats import count_zeros, tensor_list_sparsity
from sparseml.report.schema import Flops, Layer, Storage, Variant

_Asked = tuple[float | None, str]

# what the tools of these names do by default, or little more: higher levels take ten times as
# long for a few per cent
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 10
_GZIP_FORMAT = 16 + zlib.MAX_WBITS


def describe_model(
    model: nn.Module,
    metrics: Mapping[str, float] | None = None,
    inputs: Any = None,
    description: str | None = None,
    samples: int | None = None,
    trained: bool | None = None,
) -> Variant:
    """Count and measure what does not depend on the machine.

    :param metrics: what evaluation found, the most telling first; fractions rather than per cent
    :param inputs: a batch to count floating-point operations on; None to leave that out
    :param description: what this form of the model is, in a few words
    :param samples: how many the metrics were measured on; without, reports cannot tell differences
        from chance
    :param trained: whether the weights were trained or loaded, rather than just initialised;
        reports measure other models only against one that was
    """
    params = [found.param for found in distinct_params(model)]
    total = sum(param.numel() for param in params)
    return Variant(
        description=description,
        metrics=dict(metrics or {}),
        samples=samples,
        trained=trained,
        parameters=total,
        nonzero=total - sum(map(count_zeros, params)),
        storage=measure_storage(unwrap_module(model, root=True).state_dict()),
        flops=None if inputs is None else count_flops(model, inputs),
    )


def layer_sparsities(model: nn.Module, manager: Any = None) -> list[Layer]:
    """Return the zeros of each parameter that may be pruned, with the sparsity asked for.

    Listed are the weights of prunable layers and what else the manager's modifiers select, in the
    model's order; tied weights once.

    :param manager: of the recipe that the model was pruned with, to tell what was asked
    :raises RuntimeError: if a pattern of the recipe matches nothing in the model
    """
    asked = _asked(model, manager)
    prunable = {id(found.param) for found in prunable_params(model)}
    found = []
    for owned in distinct_params(model):
        if id(owned.param) not in prunable | asked.keys():
            continue
        sparsity, scope = asked.get(id(owned.param), (None, None))
        found.append(
            Layer(
                name=owned.name,
                kind=type(owned.layer).__name__,
                shape=list(owned.param.shape),
                parameters=owned.param.numel(),
                zeros=count_zeros(owned.param.detach()),
                asked=sparsity,
                scope=scope,
            )
        )
    return found


def _asked(model: nn.Module, manager: Any) -> dict[int, _Asked]:
    asked: dict[int, _Asked] = {}
    for modifier in [] if manager is None else manager.pruning_modifiers:
        if not isinstance(modifier, Prunes):
            continue
        if getattr(modifier, "remove", False) and origins_of(model):
            continue  # its units are gone, and no zeros were asked for in what is left
        scope = "global" if modifier.global_sparsity else "layer"
        try:
            found = final_sparsities(modifier, model)
        except ValueError:  # masks need not fit what has been made smaller since
            continue
        asked |= {id(selected.param): (sparsity, scope) for selected, sparsity in found}
    return asked


def measure_storage(state: Mapping[str, Tensor]) -> Storage:
    """Return the bytes that the tensors of a state dict take.

    - ``dense``: as they are;
    - ``gzip`` (level 6) and ``zstd`` (level 10; None without the package ``zstandard``):
      compressed one after the other, in their order;
    - ``bitmask``: a bit per value that says whether it is zero, and the values that are not; for
      each tensor only where that is less.

    Headers of file formats are not counted. Tensors that share all of their memory (tied weights)
    count once.

    :raises ValueError: for a tensor without values (meta device) or with a sparse layout
    """
    tensors = list(_distinct(state))
    gzip = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    try:
        package = importlib.import_module("zstandard")
        zstd = package.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    except ImportError:
        zstd = None
    return Storage(
        dense=sum(tensor.nbytes for tensor in tensors),
        gzip=_compressed(gzip, tensors),
        zstd=None if zstd is None else _compressed(zstd, tensors),
        bitmask=sum(map(_bitmask_bytes, tensors)),
    )


def _distinct(state: Mapping[str, Tensor]) -> Iterable[Tensor]:
    seen: dict[Any, Tensor] = {}
    for name, tensor in state.items():
        if tensor.is_meta or tensor.layout != torch.strided:
            found = "on the meta device" if tensor.is_meta else f"of layout {tensor.layout}"
            raise ValueError(f"storage is measured of ordinary tensors; {name!r} is {found}")
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        seen.setdefault(place if tensor.numel() else name, tensor.detach())
    return seen.values()


def _bitmask_bytes(tensor: Tensor) -> int:
    kept = (tensor.numel() - count_zeros(tensor)) * tensor.element_size()
    return min(-(-tensor.numel() // 8) + kept, tensor.nbytes)


def _compressed(compressor: Any, tensors: Iterable[Tensor]) -> int:
    size = 0
    for tensor in tensors:
        # numpy knows no bfloat16, but every dtype has bytes
        values = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
        size += len(compressor.compress(values.numpy()))
    return size + len(compressor.flush())


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
