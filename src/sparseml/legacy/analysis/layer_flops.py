"""How many floating-point operations a layer takes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from sparseml.legacy.nn.fatrelu import FATReLU

_ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.CELU, nn.ELU, nn.GELU, nn.GLU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
    nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.PReLU, nn.ReLU, nn.SELU, nn.SiLU, nn.Sigmoid,
    nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Threshold, FATReLU,
)  # fmt: skip
_POOLS = (_AvgPoolNd, _MaxPoolNd)
_ADAPTIVE_POOLS = (_AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd)


def layer_flops(
    layer: nn.Module,
    inputs: tuple[Any, ...],
    output: Any,
    ignore_zero: bool = True,
    multiply_adds: bool = True,
) -> int:
    """Return the operations of one call of a layer.

    ===============  ===========================================================================
    Linear           ``2 * weights + biases`` for each row of its input
    convolution      ``2 * weights + biases`` for each position of its output
    normalisation    2 for each input value
    activation       1 for each input value
    pooling          the kernel's size for each output value
    softmax          an exponential, an addition and a division for each input value, but for the
                     first addition of each slice
    ===============  ===========================================================================

    Anything else, embeddings too, takes none, as does a layer without a tensor as first input and
    output.

    :param inputs: the positional inputs
    :param ignore_zero: count only weights that are not zero
    :param multiply_adds: count a multiplication followed by an addition as two operations, not one
    """
    source = inputs[0] if inputs else None
    if not isinstance(source, Tensor) or not isinstance(output, Tensor):
        return 0
    factor = 2 if multiply_adds else 1
    if isinstance(layer, (nn.Linear, _ConvNd)):
        return _products(layer, source, output, factor, ignore_zero)
    if isinstance(layer, (_NormBase, nn.LayerNorm, nn.GroupNorm)):
        return factor * source.numel()
    if isinstance(layer, _ACTIVATIONS):
        return source.numel()
    if isinstance(layer, (*_ADAPTIVE_POOLS, *_POOLS)):
        return _kernel_size(layer, source, output) * output.numel()
    if isinstance(layer, (nn.Softmax, nn.Softmin, nn.Softmax2d, nn.LogSoftmax)):
        dim = -3 if isinstance(layer, nn.Softmax2d) else layer.dim
        slices = source.numel() // max(source.shape[-1 if dim is None else dim], 1)
        return 3 * source.numel() - slices
    return 0


def _products(layer: Any, source: Tensor, output: Tensor, factor: int, ignore_zero: bool) -> int:
    weight, bias = layer.weight, layer.bias
    used = int(torch.count_nonzero(weight)) if ignore_zero else weight.numel()
    units = output.shape[-1] if isinstance(layer, nn.Linear) else layer.out_channels
    added = 0 if bias is None else output.numel()
    if isinstance(layer, _ConvTransposeNd):
        # each weight is used once for each position of the input
        return factor * used * (source.numel() // layer.in_channels) + added
    return factor * used * (output.numel() // max(units, 1)) + added


def _kernel_size(layer: Any, source: Tensor, output: Tensor) -> int:
    spatial = int(type(layer).__name__.rstrip("d")[-1])
    if not isinstance(layer, _ADAPTIVE_POOLS):
        size = layer.kernel_size
        return math.prod(size) if isinstance(size, tuple) else size**spatial
    sizes = zip(source.shape[-spatial:], output.shape[-spatial:], strict=True)
    return math.prod(size - (out - 1) * (size // out) for size, out in sizes)
