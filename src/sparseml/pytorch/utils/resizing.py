"""Giving parameters, and the layers that own them, another size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

__all__ = ["replace_data", "set_layer_sizes"]


def replace_data(tensor: Tensor, data: Tensor, grad: Tensor | None = None) -> None:
    """Give a parameter or buffer other values in another shape; it stays the same object.

    Optimizers and hooks therefore keep it. A memory format such as channels-last is kept.

    :param data: the new values, of the tensor's dtype and device
    :param grad: the new gradient, of the shape of ``data``
    """
    channels_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    if channels_last and not tensor.is_contiguous():
        data = data.contiguous(memory_format=torch.channels_last)
    tensor.grad = None
    if tensor.requires_grad:
        # autograd keeps what it knew of the old shape as long as a loss of the last step is alive,
        # and would refuse gradients of the new one; a change of dtype makes it forget
        other = torch.float64 if tensor.dtype != torch.float64 else torch.float32
        tensor.data = torch.empty(0, dtype=other, device=tensor.device)
    tensor.data = data
    tensor.grad = grad


def set_layer_sizes(layer: nn.Module) -> None:
    """Set size attributes, as ``in_features`` or ``num_features``, to what the tensors have.

    The ``groups`` of a convolution have to be right already. Layers without such attributes are
    left alone.
    """
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _ConvNd):
        first, second = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
        sizes = (first, second) if isinstance(layer, _ConvTransposeNd) else (second, first)
        layer.in_channels, layer.out_channels = sizes
    elif isinstance(layer, _NormBase):
        sized = layer.weight if layer.weight is not None else layer.running_mean
        if sized is not None:
            layer.num_features = sized.shape[0]
    elif isinstance(layer, nn.LayerNorm) and layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = layer.weight.shape[1]
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.shape[0]
    elif type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"):
        # of Hugging Face's models: a Linear whose weight is [in, out]
        foreign: Any = layer
        foreign.nf = foreign.weight.shape[1]
        if hasattr(foreign, "nx"):
            foreign.nx = foreign.weight.shape[0]
