"""Gradients of a layer's weight for each sample of a batch, from one backward pass.

With the layer's inputs and the gradient of the summed loss with respect to its outputs, every
sample's own weight gradient is one small matrix product. For a loss that is averaged over n samples
multiply the output gradients by n first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import unfold


def linear_sample_gradients(inputs: Tensor, output_grads: Tensor) -> Tensor:
    """Per-sample gradients of the weight of ``y = x W^T + b``.

    :param inputs: ``[n, *positions, in]``
    :param output_grads: ``[n, *positions, out]``
    :return: ``[n, out, in]``, summed over positions
    :raises ValueError: when the samples or positions of the two differ
    """
    if inputs.shape[:-1] != output_grads.shape[:-1] or inputs.ndim < 2:
        raise ValueError(
            f"inputs {tuple(inputs.shape)} and output gradients {tuple(output_grads.shape)} must "
            "agree in all but the last dimension"
        )
    n = inputs.shape[0]
    x = inputs.reshape(n, -1, inputs.shape[-1])
    g = output_grads.reshape(n, -1, output_grads.shape[-1])
    return torch.bmm(g.mT, x)


def conv2d_sample_gradients(
    inputs: Tensor,
    output_grads: Tensor,
    kernel_size: tuple[int, int],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Per-sample gradients of the weight of a two-dimensional convolution, zero padding.

    :param inputs: ``[n, in, height, width]``
    :param output_grads: ``[n, out, height', width']``
    :return: ``[n, out, in / groups, *kernel_size]``
    """
    n, out = output_grads.shape[:2]
    patches = unfold(inputs, kernel_size, dilation=dilation, padding=padding, stride=stride)
    x = patches.reshape(n, groups, -1, patches.shape[-1])
    g = output_grads.reshape(n, groups, out // groups, -1)
    return (g @ x.mT).reshape(n, out, -1, *kernel_size)
