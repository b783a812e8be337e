"""Giving parameters, and the layers that own them, another size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparseml.pytorch.utils.layer_kinds import size_attributes


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
    for name, size in size_attributes(layer).items():
        setattr(layer, name, size)
    # norms of other libraries have it as well
    weight = getattr(layer, "weight", None)
    if isinstance(weight, Tensor) and hasattr(layer, "normalized_shape"):
        layer.normalized_shape = tuple(weight.shape)  # type: ignore[assignment]
