"""A layer whose weights stand for a power of themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparseml.pytorch.functional.powerpropagation import powerpropagated, rescaled


def require_alpha(name: str, value: float) -> float:
    """:raises ValueError: for an exponent below 1, with which weights would avoid zero"""
    if not value >= 1.0:
        raise ValueError(f"{name} must be at least 1, found {value}")
    return float(value)


class PowerpropagationWrapper(nn.Module):
    """Computes with ``w * |w| ** (alpha - 1)`` in the place of a layer's weight.

    :param layer: a ``Linear`` or ``Conv2d``; it is kept in ``layer``, its parameters are the same
    :param alpha: the exponent, at least 1; kept in the buffer ``alpha``
    :raises ValueError: for another layer, or an exponent below 1
    """

    alpha: Tensor

    def __init__(self, layer: nn.Module, alpha: float = 1.0) -> None:
        super().__init__()
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            raise ValueError(
                f"powerpropagation is for Linear and Conv2d, found {type(layer).__name__}"
            )
        self.layer = layer
        device = layer.weight.device
        self.register_buffer("alpha", torch.tensor(require_alpha("alpha", alpha), device=device))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        weight = powerpropagated(self.layer.weight, self.alpha)
        return functional_call(self.layer, {"weight": weight}, args, kwargs)

    def set_alpha(self, new_alpha: float) -> None:
        """Change the exponent, at least 1, and the weights so that the layer computes the same."""
        old = float(self.alpha)
        weight = self.layer.weight
        data, grad = rescaled(weight.data, weight.grad, old, require_alpha("new_alpha", new_alpha))
        weight.data.copy_(data)
        weight.grad = grad
        # a new tensor: one read before keeps its value
        self.alpha = torch.full_like(self.alpha, new_alpha)
