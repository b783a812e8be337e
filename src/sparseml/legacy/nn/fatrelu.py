"""ReLU with a forced activation threshold.

Kurtz et al., "Inducing and exploiting activation sparsity for fast neural network inference" (ICML
2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sparseml.pytorch.utils.layers import get_layer, swap_modules

__all__ = [
    "FATReLU",
    "convert_relus_to_fat",
    "fat_exp_relu",
    "fat_pw_relu",
    "fat_relu",
    "fat_sig_relu",
    "set_relu_to_fat",
]


_Layer = TypeVar("_Layer", bound=nn.Module)


def fat_relu(tens: Tensor, threshold: float | Tensor = 0.0, inplace: bool = False) -> Tensor:
    """Return ``x`` where it is at least the threshold, one for all or per channel, 0 below it."""
    below = tens < _per_channel(threshold, tens)
    return tens.masked_fill_(below, 0.0) if inplace else tens.masked_fill(below, 0.0)


def fat_pw_relu(
    tens: Tensor, threshold: float | Tensor, compression: float | Tensor, inplace: bool = False
) -> Tensor:
    """Return a continuous, piecewise linear approximation of :func:`fat_relu`.

    0 up to ``t - t / c``, ``c * (x - (t - t / c))`` from there to the threshold t, ``x`` beyond it;
    the slope c, the compression, is above 1.
    """
    limit, slope = _per_channel(threshold, tens), _per_channel(compression, tens)
    start = limit - limit / slope
    ramp = (slope * (tens - start)).clamp(min=0.0)
    value = torch.where(tens < limit, ramp, tens)
    return tens.copy_(value) if inplace else value


def fat_sig_relu(tens: Tensor, threshold: float | Tensor, compression: float | Tensor) -> Tensor:
    """Return ``x * sigmoid(c * (x - t))``, a smooth :func:`fat_relu`; c is the compression."""
    limit, slope = _per_channel(threshold, tens), _per_channel(compression, tens)
    return tens * torch.sigmoid(slope * (tens - limit))


def fat_exp_relu(tens: Tensor, threshold: float | Tensor, compression: float | Tensor) -> Tensor:
    """Return a continuous, piecewise exponential approximation of :func:`fat_relu`.

    0 up to 0, ``x * exp(c * (x - t))`` from there to the threshold t, ``x`` beyond it; c is the
    compression.
    """
    limit, slope = _per_channel(threshold, tens), _per_channel(compression, tens)
    # the exponent is at most 0, so that large inputs leave no infinite gradients behind
    rise = tens * torch.exp((slope * (tens - limit)).clamp(max=0.0))
    return torch.where(tens < limit, rise.masked_fill(tens <= 0, 0.0), tens)


def _per_channel(value: float | Tensor, tens: Tensor) -> Any:
    if isinstance(value, Tensor) and value.ndim == 1 and tens.ndim > 1:
        return value.reshape(1, -1, *([1] * (tens.ndim - 2)))
    return value


class FATReLU(nn.Module):
    """ReLU with a forced activation threshold: values below it become 0.

    :param threshold: a number; a list with one per channel; or an empty list, for zeros as many as
        the first input has channels
    :param inplace: overwrite the input
    """

    threshold: Tensor

    def __init__(self, threshold: float | Sequence[float] = 0.0, inplace: bool = False):
        super().__init__()
        self.register_buffer("threshold", torch.as_tensor(threshold, dtype=torch.float32))
        # whether the first input decides how many channels there are
        self.dynamic = self.channel_wise and not self.num_channels
        self.inplace = inplace

    @property
    def channel_wise(self) -> bool:
        """Whether each channel has its own threshold."""
        return self.threshold.ndim == 1

    @property
    def num_channels(self) -> int:
        """How many thresholds there are; -1 for a single one."""
        return self.threshold.numel() if self.channel_wise else -1

    def set_threshold(self, threshold: float | Sequence[float]) -> None:
        """Set that of every channel to a number, or of each to its own; a ValueError for others."""
        value = torch.as_tensor(threshold, dtype=torch.float32)
        if value.ndim and value.shape != self.threshold.shape:
            one = f"{self.num_channels} thresholds" if self.channel_wise else "a single threshold"
            raise ValueError(f"this layer has {one}, found {value.numel()}")
        with torch.no_grad():
            self.threshold.copy_(value)

    def get_threshold(self) -> float | list[float]:
        """Return the threshold, or the list of those of all channels."""
        found: float | list[float] = self.threshold.tolist()
        return found

    def forward(self, inp: Tensor) -> Tensor:
        if self.dynamic and not self.num_channels:
            self.threshold = self.threshold.new_zeros(inp.shape[1])
        if self.channel_wise and self.num_channels != inp.shape[1]:
            has, shape = f"{self.num_channels} thresholds, one per channel", tuple(inp.shape)
            raise ValueError(
                f"this layer has {has}, but the input of shape {shape} has {shape[1]} channels"
            )
        return fat_relu(inp, self.threshold, self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.get_threshold()}, inplace={self.inplace}"

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        stored = state_dict.get(f"{prefix}threshold")
        if self.dynamic and isinstance(stored, Tensor) and not self.num_channels:
            self.threshold = self.threshold.new_zeros(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def set_relu_to_fat(module: nn.Module, layer_name: str, **kwargs: Any) -> FATReLU:
    """Put a new ``FATReLU(**kwargs)`` in the place of the layer of a dotted name; return it."""
    old = get_layer(layer_name, module)
    fat = FATReLU(**kwargs).train(old.training)
    swap_modules(module, layer_name, fat)
    return fat


def convert_relus_to_fat(module: nn.Module, **kwargs: Any) -> dict[str, FATReLU]:
    """Put a ``FATReLU(**kwargs)`` for each layer ``ReLU`` or ``ReLU6``; return them by name."""
    new = partial(set_relu_to_fat, module, **kwargs)
    return replace_layers(module, (nn.ReLU, nn.ReLU6), new)


def replace_layers(
    module: nn.Module, kinds: tuple[type, ...], replace: Callable[[str], _Layer]
) -> dict[str, _Layer]:
    """Replace the layers of some kinds; return the new ones by name.

    :param replace: puts the new layer of that name into the module, and returns it; not called for
        further names of the same layer
    """
    made: dict[int, _Layer] = {}
    found: dict[str, _Layer] = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if name and isinstance(layer, kinds):
            made[id(layer)] = found[name] = made.get(id(layer)) or replace(name)
            swap_modules(module, name, found[name])
    return found
