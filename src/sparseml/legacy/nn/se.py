"""Channels weighted by what the whole image says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparseml.legacy.nn.activations import create_activation

__all__ = ["SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """Scales each channel: Hu et al., "Squeeze-and-Excitation Networks" (CVPR 2018).

    The mean of each channel goes through two 1x1 convolutions and a sigmoid; the result, one factor
    per channel, multiplies the input.

    :param expanded_channels: channels of the input, and of the output
    :param squeezed_channels: channels between the two convolutions
    :param act_type: activation between the convolutions, see
        :func:`~sparseml.legacy.nn.activations.create_activation`
    """

    def __init__(
        self, expanded_channels: int, squeezed_channels: int, act_type: str = "relu"
    ) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.conv1 = nn.Conv2d(expanded_channels, squeezed_channels, kernel_size=1)
        self.act1 = create_activation(act_type, inplace=False, num_channels=squeezed_channels)
        self.conv2 = nn.Conv2d(squeezed_channels, expanded_channels, kernel_size=1)

    def forward(self, inp: Tensor) -> Tensor:
        """Return a tensor of the shape ``[batch, channels, height, width]`` of the input."""
        factors = torch.sigmoid(self.conv2(self.act1(self.conv1(self.squeeze(inp)))))
        return inp * factors
