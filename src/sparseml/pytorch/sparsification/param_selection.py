"""Which parameters of a model the ``params`` of a modifier mean."""

from __future__ import annotations

from collections.abc import Iterable

from torch.nn import Module

from sparseml.pytorch.utils.layers import get_prunable_layers
from sparseml.pytorch.utils.params import NamedLayerParam, get_named_layers_and_params_by_regex
from sparseml.utils.constants import ALL_PRUNABLE_TOKEN, ALL_TOKEN
from sparseml.utils.iterables import validate_names
from sparseml.utils.text import shown

__all__ = ["select_params"]


def select_params(
    module: Module, params: str | Iterable[str], strict: bool = True
) -> list[NamedLayerParam]:
    """The parameters that ``params`` names, in the model's order, each once.

    :param params: ``__ALL__`` (every parameter), ``__ALL_PRUNABLE__`` (the weights of all prunable
        layers), or names and ``re:`` patterns, among which the two tokens may be as well
    :param strict: demand that every entry, and at least one, matches something
    :raises TypeError: for anything but a module
    :raises RuntimeError: with ``strict``, for entries that match nothing, with the nearest names
    :raises ValueError: for a string that is no token or, with ``strict``, if nothing is selected
    """
    if not isinstance(module, Module):
        raise TypeError(f"module must be a torch.nn.Module, found {type(module).__name__}")
    checked = validate_names(params, "params")
    entries = [checked] if isinstance(checked, str) else checked
    wanted: list[str] = []
    for entry in entries:
        if entry == ALL_PRUNABLE_TOKEN:
            wanted.extend(f"{name}.weight" if name else "weight" for name in _prunable(module))
        else:
            wanted.append("re:" if entry == ALL_TOKEN else entry)
    has_any = next(module.parameters(), None) is not None
    found = get_named_layers_and_params_by_regex(module, wanted, strict and has_any)
    if strict and not found:
        raise ValueError(
            f"params {shown(params)} select no parameter of the {type(module).__name__}"
        )
    return found


def _prunable(module: Module) -> list[str]:
    return [name for name, _ in get_prunable_layers(module)]
