"""Giving the layers of a model the smaller shapes that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.utils.names import canonical_name, canonical_named_modules
from sparseml.pytorch.utils.resizing import replace_data, set_layer_sizes

__all__ = ["thin_model_from_checkpoint"]

_THINNED = (nn.Linear, _ConvNd, _NormBase, nn.LayerNorm, nn.PReLU)


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
        if isinstance(layer, _THINNED):
            _thin_layer(layer, canonical_name(name), shapes)


def _thin_layer(layer: nn.Module, name: str, shapes: Mapping[str, torch.Size]) -> None:
    old = layer.weight.shape if isinstance(layer.weight, Tensor) else torch.Size()
    tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    for key, tensor in tensors:
        shape = shapes.get(f"{name}.{key}" if name else key)
        if shape is not None and _is_smaller(shape, tensor.shape):
            replace_data(tensor, tensor.data[tuple(slice(size) for size in shape)].clone())
    if isinstance(layer, _ConvNd):
        _set_groups(layer, old)
    set_layer_sizes(layer)


def _is_smaller(shape: torch.Size, than: torch.Size) -> bool:
    sizes = list(zip(shape, than, strict=False))
    return len(shape) == len(than) and shape != than and all(a <= b for a, b in sizes)


def _set_groups(layer: _ConvNd, old: torch.Size) -> None:
    # a grouped convolution that keeps the size of its groups has lost whole ones
    if layer.groups > 1 and layer.weight.shape[1] == old[1]:
        layer.groups = layer.weight.shape[0] // (old[0] // layer.groups)
