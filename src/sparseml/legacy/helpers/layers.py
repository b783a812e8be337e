"""Finding layers of a kind, and in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.utils.layers import evaluating, get_layer
from sparseml.pytorch.utils.names import canonical_named_modules, unwrap_module

__all__ = ["get_conv_layers", "get_dependency_order", "get_layer_param", "get_linear_layers"]


def get_layer_param(param: str, layer: str, module: nn.Module) -> nn.Parameter:
    """Return the attribute ``param`` (as ``"weight"``) of the layer named ``layer``.

    :raises AttributeError: naming the layer's own parameters when it has no ``param``
    """
    owner = unwrap_module(get_layer(layer, module), root=not layer)
    try:
        return getattr(owner, param)
    except AttributeError:
        own = [name for name, _ in owner.named_parameters(recurse=False)]
        raise AttributeError(
            f"layer {layer!r} ({type(owner).__name__}) has no parameter {param!r}; "
            f"it has {', '.join(own) or 'none'}"
        ) from None


def _layers_of_type(module: nn.Module, kind: type) -> dict[str, nn.Module]:
    return {
        name: layer for name, layer in canonical_named_modules(module) if isinstance(layer, kind)
    }


def get_conv_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the convolutions of ``module`` (any dimension, transposed ones too), by name."""
    return _layers_of_type(module, _ConvNd)


def get_linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the ``Linear`` layers of ``module`` by name."""
    return _layers_of_type(module, nn.Linear)


def get_dependency_order(
    layer: nn.Module, subset: Iterable[str], an_input: Any, **kwargs: Any
) -> list[str]:
    """Return the names in ``subset`` in the order in which one forward pass reaches them.

    :param layer: the module to run, as ``layer(an_input, **kwargs)``, in eval mode without
        gradients
    :param subset: names of layers inside ``layer``
    :return: each name once, at its first call; layers that never run are left out
    """
    order: dict[str, None] = {}
    names = list(subset)
    handles = []
    try:
        for name in names:
            hook = _recorder(order, name)
            handles.append(get_layer(name, layer).register_forward_pre_hook(hook))
        with evaluating(layer), torch.no_grad():
            layer(an_input, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return list(order)


def _recorder(order: dict[str, None], name: str) -> Any:
    def record(_module: nn.Module, _args: Any) -> None:
        order.setdefault(name)

    return record
