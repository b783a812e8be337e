"""Giving the layers of a model the smaller shapes that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sparseml.pytorch.utils.names import canonical_name, canonical_named_modules

__all__ = ["thin_model_from_checkpoint"]


def thin_model_from_checkpoint(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Shrink the layers of ``model`` in place to the shapes of ``state_dict``.

    Acts on weights and biases of ``Linear``, convolutions and normalisation layers and on running
    statistics, and sets ``in_features``, ``out_channels``, ``groups``, ``num_features`` and the
    like to match. The leading entries of each dimension are kept and gradients are dropped;
    parameters stay the same objects, so an optimizer keeps them. Tensors that the checkpoint does
    not have, or has with another number of dimensions or in a larger size, stay as they are.

    :param state_dict: tensors by name; levels added by wrappers do not matter
    """
    shapes = {canonical_name(name): tensor.shape for name, tensor in state_dict.items()}
    for name, layer in canonical_named_modules(model):
        if isinstance(layer, (nn.Linear, _ConvNd, _NormBase)):
            _thin_layer(layer, canonical_name(name), shapes)


def _thin_layer(layer: nn.Module, name: str, shapes: Mapping[str, torch.Size]) -> None:
    old = layer.weight.shape if isinstance(layer.weight, Tensor) else None
    tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    for key, tensor in tensors:
        shape = shapes.get(f"{name}.{key}" if name else key)
        if shape is not None and _is_smaller(shape, tensor.shape):
            tensor.grad = None
            tensor.data = tensor.data[tuple(slice(size) for size in shape)].clone()
    _set_sizes(layer, old)


def _is_smaller(shape: torch.Size, than: torch.Size) -> bool:
    sizes = list(zip(shape, than, strict=False))
    return len(shape) == len(than) and shape != than and all(a <= b for a, b in sizes)


def _set_sizes(layer: nn.Module, old: torch.Size | None) -> None:
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _ConvNd) and old is not None and layer.weight.shape != old:
        _set_conv_sizes(layer, old)
    elif isinstance(layer, _NormBase):
        sized = layer.weight if layer.weight is not None else layer.running_mean
        if sized is not None:
            layer.num_features = sized.shape[0]


def _set_conv_sizes(layer: _ConvNd, old: torch.Size) -> None:
    first, second = layer.weight.shape[:2]
    # the weight is [out, in / groups, ...], or [in, out / groups, ...] when transposed; a grouped
    # convolution loses whole groups, each of the size that it had
    layer.groups = first // (old[0] // layer.groups) if layer.groups > 1 else 1
    sizes = (first, second * layer.groups)
    if isinstance(layer, _ConvTransposeNd):
        layer.in_channels, layer.out_channels = sizes
    else:
        layer.out_channels, layer.in_channels = sizes
