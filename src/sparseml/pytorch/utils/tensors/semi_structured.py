"""2:4 sparse linear layers on CUDA: which of them torch's kernels take, and which gain by it.

Two weights of any four neighbours along the inputs are zero then, and sparse tensor cores (NVIDIA,
from the A100 on) skip them. See ``torch.sparse.to_sparse_semi_structured``. That is for inference:
converted layers do not train, and their state dicts hold compressed tensors, so save before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensor, to_sparse_semi_structured

from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.names import canonical_named_modules
from sparseml.pytorch.utils.tensors.nested import tensors_module_forward

_GROUP, _KEPT = 4, 2
_CAPABILITY = (8, 0)
# torch takes float32 too, but then for one zero of any two
_DTYPES = (torch.float16, torch.bfloat16)

Convert = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LayerTiming:
    """How long a layer took for what it saw in one forward pass of the model.

    :param rows: batch times sequence length, of each call
    :param dense_ms: median over rounds, of all calls together
    :param sparse_ms: the same with the converted weight
    """

    name: str
    rows: tuple[int, ...]
    dense_ms: float
    sparse_ms: float

    @property
    def speedup(self) -> float:
        """How many times as fast the sparse layer is; below 1 it loses."""
        return self.dense_ms / self.sparse_ms


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert_semi_structured` did; as text a line for every layer.

    :param converted: names of layers
    :param left: name of a dense layer -> why it stayed so
    :param timings: of the layers that kernels take, if they were measured
    """

    converted: tuple[str, ...]
    left: Mapping[str, str]
    timings: Mapping[str, LayerTiming] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{len(self.converted)} of {len(self.converted) + len(self.left)} layers are 2:4"]
        for name in self.converted:
            timing = self.timings.get(name)
            lines.append(f"{name}: converted{'' if timing is None else ', ' + _told(timing)}")
        return "\n".join([*lines, *(f"{name}: left, {why}" for name, why in self.left.items())])


def _told(timing: LayerTiming) -> str:
    said = "faster" if timing.speedup > 1 else "SLOWER"
    times = f"{timing.sparse_ms:.3f} ms against {timing.dense_ms:.3f}"
    return f"{said} for {sum(timing.rows)} rows: {times} (x{timing.speedup:.2f})"


def unfit_for_semi_structured(
    layer: nn.Linear, dtype: torch.dtype | None = None, cusparselt: bool = True
) -> str:
    """Return why torch's 2:4 kernels do not take a layer's weight, or ``""``.

    That can be asked on any machine.

    :param dtype: that the weight will have; None: that it has
    :param cusparselt: whether torch has that library, as its builds for Linux do; the kernels it
        falls back to need larger multiples
    """
    if type(layer) is not nn.Linear:
        return f"it is a {type(layer).__name__}, which may use its weight in other ways"
    dtype = layer.weight.dtype if dtype is None else dtype
    if dtype not in _DTYPES:
        return f"its weight is {_named(dtype)}; kernels take {' or '.join(map(_named, _DTYPES))}"
    backend: Any = torch.sparse.SparseSemiStructuredTensorCUTLASS
    if cusparselt:
        backend = torch.sparse.SparseSemiStructuredTensorCUSPARSELT
    limits = backend._DTYPE_SHAPE_CONSTRAINTS[dtype]
    steps = (limits.sparse_min_rows, limits.sparse_min_cols)
    if any(size % step for size, step in zip(layer.weight.shape, steps, strict=True)):
        found = tuple(layer.weight.shape)
        return f"its weight has shape {found}; kernels take multiples of {steps}"
    full = (layer.weight.reshape(-1, _GROUP) != 0).sum(dim=1) > _KEPT
    if bool(full.any()):
        return f"{full.float().mean():.1%} of its groups of four have more than two weights"
    return ""


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def require_sparse_tensor_cores(device: torch.device, cusparselt: bool = True) -> None:
    """Check that a device has 2:4 kernels.

    :param cusparselt: whether torch has that library; its own kernels are for 8.x only
    :raises RuntimeError: saying what was found, and what becomes of the model
    """
    found = f"the model is on {device.type!r}"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        known = capability[0] == 8 or (cusparselt and capability >= _CAPABILITY)
        if known and torch.version.hip is None:
            return
        found = f"{torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}"
    raise RuntimeError(
        "2:4 kernels need an NVIDIA GPU of compute capability 8.0 or higher, and "
        f"{found}; a 2:4 pruned model runs here as it is, at the speed of a dense one"
    )


def time_semi_structured(
    model: nn.Module,
    names: Iterable[str],
    example_inputs: Any,
    rounds: int = 50,
    convert: Convert = to_sparse_semi_structured,
) -> dict[str, LayerTiming]:
    """Time linear layers, dense and 2:4 in turns, on rows as the model gives them.

    :param names: of layers that kernels take
    :param example_inputs: a batch such as the model will see, batch size and length above all:
        tensor, or tuple, list or dict of tensors
    :param rounds: of each
    :return: for each layer that is called its times
    """
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in names}
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0]))
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model), torch.inference_mode():
            tensors_module_forward(example_inputs, model, check_feat_lab_inp=False)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: _timed(name, layer, seen[name], rounds, convert)
        for name, layer in layers.items()
        if seen[name]
    }


@torch.no_grad()
def _timed(
    name: str, layer: nn.Linear, inputs: list[Tensor], rounds: int, convert: Convert
) -> LayerTiming:
    weight, bias = layer.weight.detach(), layer.bias
    weights = {"dense": weight, "sparse": convert(weight)}
    taken: dict[str, list[float]] = {kind: [] for kind in weights}
    for place in range(rounds + 3):
        for kind, used in weights.items():
            _wait(weight.device)
            begin = time.perf_counter()
            for given in inputs:
                F.linear(given, used, bias)
            _wait(weight.device)
            if place >= 3:  # the first calls choose and load kernels
                taken[kind].append(1000 * (time.perf_counter() - begin))
    rows = tuple(given.shape[:-1].numel() for given in inputs)
    return LayerTiming(name, rows, median(taken["dense"]), median(taken["sparse"]))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def convert_semi_structured(
    model: nn.Module,
    example_inputs: Any = None,
    only_faster: bool = True,
    rounds: int = 50,
) -> Conversion:
    """Convert the 2:4 pruned linear layers of ``model``, in place, for inference on CUDA.

    Each is measured on ``example_inputs`` first, and stays dense where 2:4 is not faster: small
    batches and layers lose more often than not.

    :param example_inputs: a batch such as the model will see; None measures nothing and converts
        all layers that kernels take
    :param only_faster: False also converts the layers that lose, and says so
    :param rounds: in which each is timed
    :raises RuntimeError: on a device without such kernels
    """
    layers = {
        name: layer
        for name, layer in canonical_named_modules(model)
        if isinstance(layer, nn.Linear)
    }
    cusparselt = torch.backends.cusparselt.is_available()
    require_sparse_tensor_cores(next(model.parameters(), torch.empty(0)).device, cusparselt)
    SparseSemiStructuredTensor._FORCE_CUTLASS = not cusparselt
    unfit = {
        name: unfit_for_semi_structured(layer, None, cusparselt) for name, layer in layers.items()
    }
    left = {name: why for name, why in unfit.items() if why}
    fit = [name for name in layers if name not in left]
    timings = {}
    if example_inputs is not None:
        timings = time_semi_structured(model, fit, example_inputs, rounds)
    for name, timing in timings.items():
        if only_faster and timing.speedup <= 1:
            left[name] = _told(timing)
    converted = tuple(name for name in fit if name not in left)
    for name in converted:
        weight = layers[name].weight.detach().contiguous()
        layers[name].weight = nn.Parameter(to_sparse_semi_structured(weight), requires_grad=False)
    return Conversion(converted, left, timings)
