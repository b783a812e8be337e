"""Giving the layers of a model the smaller shapes that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.utils.layer_kinds import tensor_axes
from sparseml.pytorch.utils.names import canonical_name, canonical_named_modules
from sparseml.pytorch.utils.saving.resizing import replace_data, set_layer_sizes


def thin_model_from_checkpoint(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Shrink the layers of ``model`` in place to the shapes of ``state_dict``.

    Acts on weights and biases of ``Linear`` (Hugging Face's ``Conv1D`` too), convolutions and
    normalisation layers, on running statistics and on the width of ``Embedding``, and sets
    ``in_features``, ``out_channels``, ``groups``, ``num_features`` and the like to match. The
    leading entries of each dimension are kept and gradients are dropped; parameters stay the same
    objects, so an optimizer keeps them. Tensors that the checkpoint does not have, or has with
    another number of dimensions or in a larger size, stay as they are.

    :param state_dict: tensors by name; levels added by wrappers do not matter
    """
    tensors = {name: one for name, one in state_dict.items() if isinstance(one, Tensor)}
    shapes = {canonical_name(name): tensor.shape for name, tensor in tensors.items()}
    for name, layer in canonical_named_modules(model):
        if tensor_axes(layer) or isinstance(layer, nn.LayerNorm):
            _thin_layer(layer, canonical_name(name), shapes)


def take_shapes(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give what :func:`thin_model_from_checkpoint` does not know the smaller shapes it once had.

    That is parameters of a model's own (positions, scales) and norms of other libraries, which no
    weights alone can tell from those of another model.

    :param shapes: by name, of the very model whose description they come from
    """
    for name, layer in canonical_named_modules(model):
        if tensor_axes(layer) or isinstance(layer, nn.LayerNorm):
            continue
        for key, tensor in (*layer._parameters.items(), *layer._buffers.items()):
            shape = torch.Size(shapes.get(f"{name}.{key}" if name else key, ()))
            if tensor is not None and _is_smaller(shape, tensor.shape):
                # what has lost entries is in state dicts, even if a model did not want it there
                layer._non_persistent_buffers_set.discard(key)
                replace_data(tensor, tensor.data[tuple(slice(size) for size in shape)].clone())
        set_layer_sizes(layer)


def _thin_layer(layer: nn.Module, name: str, shapes: Mapping[str, torch.Size]) -> None:
    old = layer.weight.shape if isinstance(layer.weight, Tensor) else torch.Size()
    tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    axes = tensor_axes(layer)
    for key, tensor in tensors:
        shape = shapes.get(f"{name}.{key}" if name else key)
        if shape is None or not _is_smaller(shape, tensor.shape):
            continue
        # words of an Embedding are no units: a file with fewer is of another vocabulary
        fixed = [dim for dim, axis in enumerate(axes.get(key, ())) if axis is None]
        if all(shape[dim] == tensor.shape[dim] for dim in fixed):
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
