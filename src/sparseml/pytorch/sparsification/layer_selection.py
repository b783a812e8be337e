"""Which layers of a model the ``layers`` of a modifier mean."""

from __future__ import annotations

from collections.abc import Iterable

from torch.nn import Module

from sparseml.pytorch.utils.layers import get_prunable_layers, get_terminal_layers
from sparseml.pytorch.utils.names import (
    REGEX_PREFIX,
    any_str_or_regex_matches_param_name,
    canonical_named_modules,
)
from sparseml.utils.constants import ALL_PRUNABLE_TOKEN, ALL_TOKEN
from sparseml.utils.iterables import validate_names
from sparseml.utils.text import did_you_mean, shown


def select_layers(module: Module, layers: str | Iterable[str]) -> list[str]:
    """The names of the layers that ``layers`` names, in the model's order.

    A layer inside another that is named as well is left out, and so are lists of layers, which the
    model does not call.

    :param layers: ``__ALL__`` (every layer that has none of its own), ``__ALL_PRUNABLE__``, or
        names and ``re:`` patterns, among which the two tokens may be as well
    :raises RuntimeError: for entries that match nothing, with the nearest names
    """
    checked = validate_names(layers, "layers")
    layers_of_model = canonical_named_modules(module)
    known = [n for n, one in layers_of_model if n and type(one).forward is not Module.forward]
    chosen: set[str] = set()
    for entry in [checked] if isinstance(checked, str) else checked:
        found = _matched(module, entry, known)
        if not found:
            text = entry.removeprefix(REGEX_PREFIX)
            raise RuntimeError(
                f"layers: {shown(entry)} matches no layer of {type(module).__name__}"
                f"{did_you_mean(text, known)}"
            )
        chosen.update(found)
    return [name for name in known if name in chosen and not _is_inside(name, chosen)]


def _matched(module: Module, entry: str, known: list[str]) -> list[str]:
    if entry == ALL_TOKEN:
        return list(get_terminal_layers(module))
    if entry == ALL_PRUNABLE_TOKEN:
        return [name for name, _ in get_prunable_layers(module) if name]
    return [name for name in known if any_str_or_regex_matches_param_name(name, [entry])]


def _is_inside(name: str, others: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:count]) in others for count in range(1, len(parts)))
