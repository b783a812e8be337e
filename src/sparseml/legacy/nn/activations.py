"""Activations with a place to note their channels, exchanged for others, and in a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.legacy.nn.fatrelu import FATReLU, replace_layers
from sparseml.pytorch.utils.layers import get_layer, swap_modules
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = [
    "Hardswish",
    "ReLU",
    "ReLU6",
    "SqueezeExcite",
    "Swish",
    "create_activation",
    "hard_swish",
    "is_activation",
    "replace_activation",
    "replace_activations",
    "swish",
]


class _Noted(nn.Module):
    """An activation that can note how many channels it acts on, for the reader only."""

    def __init__(self, num_channels: int = -1, inplace: bool = False):
        super().__init__(inplace=inplace)
        self.num_channels = num_channels


class ReLU(_Noted, nn.ReLU):
    """``max(0, x)``."""


class ReLU6(_Noted, nn.ReLU6):
    """``min(max(0, x), 6)``."""


class Swish(nn.SiLU):
    """``x * sigmoid(x)`` (Ramachandran et al., 2017); ``num_channels`` is for the reader only."""

    def __init__(self, num_channels: int = -1):
        super().__init__()
        self.num_channels = num_channels


class Hardswish(_Noted, nn.Hardswish):
    """``x * min(max(x + 3, 0), 6) / 6`` (Howard et al., "Searching for MobileNetV3", 2019)."""


def swish(x_tens: Tensor) -> Tensor:
    """Return what :class:`Swish` does."""
    return nn.functional.silu(x_tens)


def hard_swish(x_tens: Tensor, inplace: bool = False) -> Tensor:
    """Return what :class:`Hardswish` does, in place of ``x_tens`` if ``inplace``."""
    return nn.functional.hardswish(x_tens, inplace=inplace)


def _prelu(inplace: bool, num_channels: int, **kwargs: Any) -> nn.Module:
    return nn.PReLU(**{"num_parameters": max(num_channels, 1), **kwargs})


_MAKERS: dict[str, Callable[..., nn.Module]] = {
    "relu": lambda inplace, num_channels, **kw: ReLU(num_channels, inplace, **kw),
    "relu6": lambda inplace, num_channels, **kw: ReLU6(num_channels, inplace, **kw),
    "prelu": _prelu,
    "lrelu": lambda inplace, num_channels, **kw: nn.LeakyReLU(inplace=inplace, **kw),
    "swish": lambda inplace, num_channels, **kw: Swish(num_channels, **kw),
    "hardswish": lambda inplace, num_channels, **kw: Hardswish(num_channels, inplace, **kw),
    "silu": lambda inplace, num_channels, **kw: nn.SiLU(inplace=inplace, **kw),
}
_KINDS = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.LeakyReLU, nn.SiLU, nn.Hardswish, FATReLU)


def create_activation(act_type: str, inplace: bool, num_channels: int, **kwargs: Any) -> nn.Module:
    """Return a new activation.

    :param act_type: ``relu``, ``relu6``, ``prelu``, ``lrelu``, ``swish``, ``hardswish`` or
        ``silu``, in any case; else a ValueError
    :param inplace: overwrite the input, where the activation can
    :param num_channels: number of channels, which PReLU has parameters for (one if below 1)
    """
    name = act_type.lower() if isinstance(act_type, str) else act_type
    if name not in _MAKERS:
        hint = did_you_mean(str(name), _MAKERS)
        raise ValueError(f"act_type must be {quoted_list(_MAKERS)}, found {act_type!r}{hint}")
    return _MAKERS[name](inplace, num_channels, **kwargs)


def is_activation(module: nn.Module) -> bool:
    """Whether a layer is one of the activations that :func:`create_activation` knows."""
    return isinstance(module, _KINDS)


def replace_activation(
    module: nn.Module,
    name: str,
    act_type: str,
    inplace: bool = False,
    num_channels: int | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Put a new activation in the place of a layer and return it; see :func:`create_activation`.

    :param name: dotted name of the layer
    :param num_channels: number of channels; None for that of the old layer, -1 if it has none
    :raises AttributeError: if there is no such layer
    """
    old = get_layer(name, module)
    if num_channels is None:
        noted = getattr(old, "num_parameters", getattr(old, "num_channels", -1))
        num_channels = noted if isinstance(noted, int) else -1
    new = create_activation(act_type, inplace, num_channels, **kwargs).train(old.training)
    swap_modules(module, name, new)
    return new


def replace_activations(
    module: nn.Module,
    act_type: str,
    inplace: bool = False,
    num_channels: int | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Put new activations in the place of all layers that :func:`is_activation` knows.

    Return the model, or a new activation if it is one; see :func:`replace_activation`.
    """
    holder, how = nn.Sequential(module), (act_type, inplace, num_channels)
    replace_layers(holder, _KINDS, lambda name: replace_activation(holder, name, *how, **kwargs))
    return holder[0]


class SqueezeExcite(nn.Module):
    """Scales each channel: Hu et al., "Squeeze-and-Excitation Networks" (CVPR 2018).

    The mean of each channel goes through two 1x1 convolutions, to ``squeezed_channels`` and back,
    with an activation between them, and a sigmoid; the result, one factor per channel, multiplies
    the input.
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
