"""Choosing parameters of a model by names and patterns."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from sparseml.pytorch.utils.layers import get_prunable_layers
from sparseml.pytorch.utils.names import (
    REGEX_PREFIX,
    NamePatterns,
    canonical_name,
    canonical_named_modules,
)
from sparseml.pytorch.utils.tensors.parametrized import computed_tensor, original_of
from sparseml.utils.text import did_you_mean, few, shortened, shown

_MOST_TOLD = 8


class NamedLayerParam(NamedTuple):
    """A parameter with the layer that owns it; names are canonical.

    What the weight of a parametrized layer is computed from belongs to that layer, under a name
    with dots in it (``parametrizations.weight.original1``).
    """

    layer_name: str
    layer: nn.Module
    param_name: str
    param: nn.Parameter

    @property
    def name(self) -> str:
        """Full name, ``<layer_name>.<param_name>`` (``<param_name>`` for the root's own)."""
        return f"{self.layer_name}.{self.param_name}" if self.layer_name else self.param_name


def iter_layer_params(module: nn.Module) -> Iterator[NamedLayerParam]:
    """Yield every parameter with its layer, in the order of ``named_parameters``.

    A tied parameter comes once for each layer that owns it, so that either name can be matched.
    """
    owners = {}
    for path, part in canonical_named_modules(module):
        owners[path] = part
        layer_name, prefix = path, ""
        if isinstance(part, ParametrizationList):
            pieces = path.split(".")
            layer_name, prefix = ".".join(pieces[:-2]), ".".join(pieces[-2:]) + "."
        for name, param in part.named_parameters(recurse=False, remove_duplicate=False):
            yield NamedLayerParam(layer_name, owners[layer_name], f"{prefix}{name}", param)


def distinct_params(module: nn.Module) -> list[NamedLayerParam]:
    """Return every parameter once, tied ones under the first of their names, in that order."""
    found: dict[int, NamedLayerParam] = {}
    for owned in iter_layer_params(module):
        found.setdefault(id(owned.param), owned)
    return list(found.values())


def parameter_count(module: nn.Module) -> int:
    """Return how many entries all parameters have, tied ones counted once."""
    return sum(found.param.numel() for found in distinct_params(module))


def prunable_params(module: nn.Module) -> list[NamedLayerParam]:
    """Return the weights of the prunable layers, in the model's order, as far as masks fit them.

    In the place of a weight that is computed of other parameters stands the one of them whose zeros
    are its zeros; without such a one (see :func:`unmaskable_weights`) the layer is left out.
    """
    names = {
        id(layer): original_of(layer, "weight").name for _, layer in get_prunable_layers(module)
    }
    return [
        found
        for found in iter_layer_params(module)
        if names.get(id(found.layer)) == found.param_name
    ]


def unmaskable_weights(module: nn.Module) -> dict[str, str]:
    """Return the weights of prunable layers that :func:`prunable_params` leaves out, with why."""
    originals = {
        f"{name}.weight" if name else "weight": original_of(layer, "weight")
        for name, layer in get_prunable_layers(module)
    }
    return {name: reason for name, (chosen, reason) in originals.items() if chosen is None}


def names_of(found: NamedLayerParam, quant_wrappers: Container[str] = ()) -> list[str]:
    """Return the names that a parameter answers to.

    They are its own, that of the tensor that is computed from it and, in a QuantWrapper, the plain
    one.
    """
    prefix = f"{found.layer_name}." if found.layer_name else ""
    tensor = computed_tensor(found.layer, found.param_name)
    names = [found.name] if tensor is None else [found.name, f"{prefix}{tensor}"]
    parent, _, last = found.layer_name.rpartition(".")
    if last == "module" and parent in quant_wrappers:
        names.append(f"{parent}.{found.param_name}" if parent else found.param_name)
    return names


def get_named_layers_and_params_by_regex(
    module: nn.Module, param_names: Iterable[str], params_strict: bool = False
) -> list[NamedLayerParam]:
    """Return the parameters that the entries of ``param_names`` match, in the model's order.

    An entry is a full name or, after ``re:``, a regular expression anchored at the start. A
    parameter comes once however many entries match it. Tied weights are one parameter: it is
    reported under the first of its names that an entry matches, and an entry that matches any of
    its names has matched. A layer ``X.module`` inside a ``QuantWrapper`` ``X`` also answers to
    ``X``, and what a tensor is computed from to the name of the tensor.

    :param params_strict: demand that each entry matches at least one parameter
    :raises RuntimeError: with ``params_strict``, naming the entries that match nothing, the
        nearest names and what the entries were tried on
    :raises ValueError: for a pattern that is no regular expression, or entries given as one str
    """
    if isinstance(param_names, str):
        raise ValueError(f"param_names must be a list of names, found {shown(param_names)}")
    patterns = NamePatterns(param_names)
    quant_wrappers = {
        name
        for name, layer in canonical_named_modules(module)
        if type(layer).__name__ == "QuantWrapper"
    }
    candidates = list(iter_layer_params(module))
    found: dict[int, NamedLayerParam] = {}
    matched: set[str] = set()
    for candidate in candidates:
        for name in names_of(candidate, quant_wrappers):
            entries = patterns.matching(name)
            matched.update(entries)
            if entries:
                found.setdefault(id(candidate.param), candidate)
    unmatched = [entry for entry in patterns.entries if entry not in matched]
    if params_strict and unmatched:
        raise RuntimeError(_no_match_message(unmatched, [c.name for c in candidates]))
    return list(found.values())


def _no_match_message(entries: list[str], names: list[str]) -> str:
    if not names:
        return f"nothing matches {shown(entries)}: the module has no parameters"
    parts = []
    for entry in entries[:_MOST_TOLD]:
        kind = "pattern" if entry.startswith(REGEX_PREFIX) else "name"
        hint = did_you_mean(canonical_name(entry.removeprefix(REGEX_PREFIX)), names)
        parts.append(f"{kind} {shortened(entry)} matches no parameter{hint}")
    if len(entries) > _MOST_TOLD:
        parts.append(f"and {len(entries) - _MOST_TOLD} more match no parameter")
    return "\n".join([*parts, f"tried on: {few(names, 10)}"])
