"""The sizes of a model that has lost units, as a checkpoint keeps them, and giving them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from sparseml.pytorch.units.attributes import sizes_of
from sparseml.pytorch.units.slim_attention import SlimAttention, make_slim
from sparseml.pytorch.utils.names import canonical_named_modules, unwrap_module
from sparseml.pytorch.utils.thinning import take_shapes


def sizes_state(model: nn.Module) -> dict[str, Any]:
    """Return what tells the shapes of a model beside its weights, as plain data."""
    model = unwrap_module(model, root=True)
    modules = list(canonical_named_modules(model))
    return {
        "slim": [name for name, one in modules if isinstance(one, SlimAttention)],
        "attributes": {name: sizes for name, one in modules if (sizes := dict(sizes_of(one)))},
        "shapes": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
    }


def take_sizes(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Give ``model`` the sizes of :func:`sizes_state`; shapes of layers follow their weights.

    :param model: as it was before it lost units
    :param state: empty for a model that has lost none
    """
    model = unwrap_module(model, root=True)
    for name in state.get("slim", ()):
        layer = model.get_submodule(name)
        if isinstance(layer, nn.MultiheadAttention) and not isinstance(layer, SlimAttention):
            make_slim(model, layer)
    for name, sizes in state.get("attributes", {}).items():
        for key, value in sizes.items():
            setattr(model.get_submodule(name), key, value)
    take_shapes(model, state.get("shapes", {}))
