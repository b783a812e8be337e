"""Which parameters of a model the ``params`` of a modifier mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch.nn import Module

from sparseml.pytorch.units.removable import removable_units
from sparseml.pytorch.utils.layers import get_prunable_layers
from sparseml.pytorch.utils.names import REGEX_PREFIX, canonical_name
from sparseml.pytorch.utils.params import (
    NamedLayerParam,
    get_named_layers_and_params_by_regex,
    iter_layer_params,
    names_of,
    unmaskable_weights,
)
from sparseml.pytorch.utils.tensors.parametrized import computed_tensor, original_of
from sparseml.utils.constants import ALL_PRUNABLE_TOKEN, ALL_TOKEN, STRUCTURED_TOKEN
from sparseml.utils.iterables import validate_names
from sparseml.utils.text import few, shown


def select_params(
    module: Module,
    params: str | Iterable[str],
    strict: bool = True,
    *,
    exclude: str | Iterable[str] | None = None,
    masked: bool = False,
) -> list[NamedLayerParam]:
    """The parameters that ``params`` names, in the model's order, each once.

    :param params: ``__ALL__`` (every parameter), ``__ALL_PRUNABLE__`` (the weights of all prunable
        layers), or names and ``re:`` patterns, among which the two tokens may be as well
    :param strict: demand that every entry, and at least one, matches something
    :param exclude: the same for parameters to leave out
    :param masked: of the tensors that are computed of parameters (by weight norm, ...), select only
        the parameter whose zeros are the tensor's zeros
    :raises TypeError: for anything but a module
    :raises RuntimeError: with ``strict``, for entries that match nothing, with the nearest names
    :raises ValueError: for a string that is no token, for a tensor named in full that cannot be
        masked and, with ``strict``, if nothing is selected
    """
    if not isinstance(module, Module):
        raise TypeError(f"module must be a torch.nn.Module, found {type(module).__name__}")
    entries = as_entries(validate_names(params, "params"))
    found = _matched(module, entries, strict)
    if masked:
        found = _maskable(found, entries)
    if left := as_entries(validate_names(exclude or [], "exclude")):
        try:
            out = {id(one.param) for one in _matched(module, left, strict)}
        except RuntimeError as error:
            raise RuntimeError(f"exclude: {error}") from error
        if found and all(id(one.param) in out for one in found):
            raise ValueError(
                f"exclude {shown(exclude)} leaves nothing of what params {shown(params)} select"
            )
        found = [one for one in found if id(one.param) not in out]
    if strict and not found:
        out = [f"{name}: {reason}" for name, reason in left_out(module, entries).items()]
        why = f"; {few(out, between='; ')}" if out else ""
        raise ValueError(
            f"params {shown(params)} select no parameter of the {type(module).__name__}{why}"
        )
    return found


def as_entries(params: str | Iterable[str] | None) -> list[str]:
    """Return tokens, names and patterns, of which there may be one or none, as a list."""
    return [params] if isinstance(params, str) else list(params or [])


def left_out(
    module: Module, entries: Sequence[str], exclude: str | Iterable[str] | None = None
) -> dict[str, str]:
    """Return the weights that ``entries`` mean but masks do not fit, each with the reason."""
    reasons = unmaskable_weights(module)
    if not reasons:
        return {}
    meant = [] if ALL_PRUNABLE_TOKEN not in entries else list(reasons)
    matched = _matched(module, [one for one in entries if one != ALL_PRUNABLE_TOKEN])
    out = {name for one in _matched(module, as_entries(exclude)) for name in names_of(one)}
    meant += [name for one in matched for name in names_of(one)]
    return {name: why for name, why in reasons.items() if name in meant and name not in out}


def _matched(module: Module, entries: Sequence[str], strict: bool = False) -> list[NamedLayerParam]:
    wanted = [REGEX_PREFIX if one == ALL_TOKEN else one for one in entries]
    if ALL_PRUNABLE_TOKEN in wanted:
        wanted.remove(ALL_PRUNABLE_TOKEN)
        known = {name for one in iter_layer_params(module) for name in names_of(one)}
        weights = (
            f"{name}.weight" if name else "weight" for name, _ in get_prunable_layers(module)
        )
        wanted += [name for name in weights if name in known]
    if STRUCTURED_TOKEN in wanted:
        wanted.remove(STRUCTURED_TOKEN)
        found = removable_units(module).found
        wanted += dict.fromkeys(name for units in found for name in units.group.masked)
    has_any = next(module.parameters(), None) is not None
    return get_named_layers_and_params_by_regex(module, wanted, strict and has_any)


def _maskable(found: list[NamedLayerParam], entries: Sequence[str]) -> list[NamedLayerParam]:
    """Leave out what is computed with and has no mask of its own.

    :raises ValueError: for such a tensor that an entry names in full
    """
    kept: list[NamedLayerParam] = []
    refused: list[NamedLayerParam] = []
    for one in found:
        tensor = computed_tensor(one.layer, one.param_name)
        chosen = original_of(one.layer, tensor).name if tensor is not None else one.param_name
        inside = "parametrizations" in one.layer_name.split(".")
        (refused if inside or chosen != one.param_name else kept).append(one)
    names = {name for one in kept for name in names_of(one)}
    for entry in map(canonical_name, entries):
        for one in refused:
            if entry in names_of(one) and entry not in names:
                tensor = computed_tensor(one.layer, one.param_name)
                reason = original_of(one.layer, tensor).reason if tensor else ""
                raise ValueError(
                    f"{entry!r} of the {type(one.layer).__name__} cannot be masked: "
                    + (reason or f"{one.name} only takes part in computing the weight")
                )
    return kept
