"""Activations with a place to note their number of channels, and thresholded ReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FATReLU", "ReLU", "ReLU6", "Swish", "fat_relu", "swish"]


class ReLU(nn.ReLU):
    """``max(0, x)``.

    :param num_channels: number of channels that it acts on, for the reader only
    :param inplace: overwrite the input
    """

    def __init__(self, num_channels: int = -1, inplace: bool = False):
        super().__init__(inplace=inplace)
        self.num_channels = num_channels


class ReLU6(nn.ReLU6):
    """``min(max(0, x), 6)``.

    :param num_channels: number of channels that it acts on, for the reader only
    :param inplace: overwrite the input
    """

    def __init__(self, num_channels: int = -1, inplace: bool = False):
        super().__init__(inplace=inplace)
        self.num_channels = num_channels


def swish(x_tens: Tensor) -> Tensor:
    """``x * sigmoid(x)`` (Ramachandran et al., 2017), torch's SiLU."""
    return nn.functional.silu(x_tens)


class Swish(nn.Module):
    """``x * sigmoid(x)`` (Ramachandran et al., 2017).

    :param num_channels: number of channels that it acts on, for the reader only
    """

    def __init__(self, num_channels: int = -1):
        super().__init__()
        self.num_channels = num_channels

    def forward(self, inp: Tensor) -> Tensor:
        return swish(inp)


def fat_relu(tens: Tensor, threshold: float | Tensor = 0.0, inplace: bool = False) -> Tensor:
    """ReLU with a forced activation threshold (Kurtz et al., ICML 2020).

    :param tens: values of any shape
    :param threshold: values below it become 0; a number, or one per channel (dimension 1)
    :param inplace: overwrite ``tens``
    """
    if isinstance(threshold, Tensor) and threshold.ndim == 1 and tens.ndim > 1:
        threshold = threshold.reshape(1, -1, *([1] * (tens.ndim - 2)))
    below = tens < threshold
    return tens.masked_fill_(below, 0.0) if inplace else tens.masked_fill(below, 0.0)


class FATReLU(nn.Module):
    """ReLU with a forced activation threshold: values below it become 0.

    :param threshold: a number, or one per channel
    :param inplace: overwrite the input
    """

    threshold: Tensor

    def __init__(self, threshold: float | list[float] = 0.0, inplace: bool = False):
        super().__init__()
        self.register_buffer("threshold", torch.as_tensor(threshold, dtype=torch.float32))
        self.inplace = inplace

    def forward(self, inp: Tensor) -> Tensor:
        return fat_relu(inp, self.threshold, self.inplace)
