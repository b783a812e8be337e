"""Finding, reading and replacing the layers of a model by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.utils.names import canonical_name, canonical_named_modules, unwrap_module
from sparseml.utils.text import nearest_names, shown

_QUANTIZABLE = (nn.Linear, nn.Embedding, nn.Conv2d, nn.Conv3d)


def _missing(name: str, piece: str, module: nn.Module) -> AttributeError:
    known = [layer_name for layer_name, _ in canonical_named_modules(module) if layer_name]
    near = nearest_names(name, known) or known[:5]
    hint = f"; nearest layers: {', '.join(near)}" if near else "; the module has no layers"
    return AttributeError(f"no layer {shown(name)} in {type(module).__name__}: no {piece!r}{hint}")


def _child(layer: Any, piece: str, is_root: bool) -> Any:
    """Return the attribute ``piece`` of ``layer`` or of what it wraps; None when there is none."""
    if isinstance(layer, nn.Module):
        for owner in (layer, unwrap_module(layer, root=is_root)):
            child = getattr(owner, piece, None)
            if child is not None:
                return child
    is_wrapper_level = canonical_name(f"{piece}.x") == "x" and (is_root or piece != "module")
    return layer if is_wrapper_level else getattr(layer, piece, None)


def get_layer(name: str, module: nn.Module) -> nn.Module:
    """Return the layer of ``module`` with the dotted ``name``; ``""`` is the module itself.

    Wrappers (DDP, ``torch.compile``, ...) are looked through at every level, so canonical names
    and names as ``named_modules`` gives them both work.

    :raises AttributeError: listing the nearest names when there is no such layer
    """
    layer: Any = module
    for piece in name.split(".") if name else ():
        child = _child(layer, piece, is_root=layer is module)
        if child is None:
            raise _missing(name, piece, module)
        layer = child
    return layer


def get_terminal_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers below ``module`` that have no layers of their own, by name."""
    return {
        name: layer
        for name, layer in canonical_named_modules(module)
        if name and not any(True for _ in layer.children())
    }


def _layers_of_type(module: nn.Module, types: tuple[type, ...]) -> list[tuple[str, nn.Module]]:
    return [pair for pair in canonical_named_modules(module) if isinstance(pair[1], types)]


def get_prunable_layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return ``(name, layer)`` for every layer whose weight pruning usually acts on.

    These are ``Linear``, ``Embedding`` and convolutions of any dimension, with their
    quantization-aware subclasses, and Hugging Face's ``Conv1D`` where that library is loaded.
    A layer reached under several names comes once.
    """
    types: tuple[type, ...] = (nn.Linear, nn.Embedding, _ConvNd)
    # a model that holds such a layer has imported its module, so nothing is imported here
    hugging_face = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
    if hugging_face is not None:
        types += (hugging_face,)
    return _layers_of_type(module, types)


def get_quantizable_layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return ``(name, layer)`` for every ``Linear``, ``Embedding``, ``Conv2d`` and ``Conv3d``."""
    return _layers_of_type(module, _QUANTIZABLE)


def is_quantized_layer(layer: nn.Module) -> bool:
    """Whether a layer computes with (simulated) quantized weights."""
    return any(
        getattr(layer, attribute, None) is not None
        for attribute in ("quantization_scheme", "weight_fake_quant")
    )


def get_quantized_layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return ``(name, layer)`` for every quantizable layer that is quantized."""
    return [pair for pair in get_quantizable_layers(module) if is_quantized_layer(pair[1])]


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models into eval mode, and at the end each of their layers into the mode it had."""
    modes = [(layer, layer.training) for model in models for layer in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for layer, training in modes:
            layer.training = training


def swap_modules(
    module: nn.Module, submodule_name: str, submodule_to_replace: nn.Module
) -> nn.Module:
    """Put ``submodule_to_replace`` in the place of the layer named ``submodule_name``.

    :return: the layer that was there, so that a second call can put it back
    :raises ValueError: for the empty name: a module cannot replace itself
    :raises AttributeError: when there is no such layer
    """
    if not submodule_name:
        raise ValueError("submodule_name must name a layer inside the module, found ''")
    parent_name, _, last = submodule_name.rpartition(".")
    old = get_layer(submodule_name, module)
    parent = get_layer(parent_name, module)
    if last not in parent._modules:
        parent = unwrap_module(parent, root=not parent_name)
    setattr(parent, last, submodule_to_replace)
    return old
