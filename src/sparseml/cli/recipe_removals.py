"""What a recipe takes out of a model, found by doing it with any units, as many as will go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from sparseml.pytorch.sparsification import SRPPruningModifier
from sparseml.pytorch.units.gated import remove_gated
from sparseml.pytorch.units.probing import sample_inputs
from sparseml.pytorch.utils.params import parameter_count

Removal = dict[str, Any]

_WORDS = {
    "stream": "dimensions of the stream",
    "qk": "channels of queries and keys",
    "vo": "channels of values",
    "fc": "neurons",
}


def removes_units(modifier: Any) -> bool:
    """Return whether a modifier takes units out of a model."""
    return isinstance(modifier, SRPPruningModifier)


def removals(modifier: Any, model: nn.Module) -> Removal:
    """Remove from a model as many units as a modifier will, and return of what kinds.

    :param model: not on the meta device; it has the sizes that it will have, afterwards
    :return: ``units``, for each kind the number of ``places``, and units ``before`` and ``after``
        in all of them; ``parameters`` of the model, ``before`` and ``after``; and what is
        ``skipped``, with the reason. Of a model that cannot be run as it is, ``unknown``: why
    :raises ValueError: for a model in which nothing can go
    """
    if any(param.is_meta for param in model.parameters()):
        return {"unknown": "the model was built without weights"}
    try:
        sample_inputs(model)
    except ValueError as error:
        return {"unknown": str(error)}
    before = parameter_count(model)
    keeps, skipped = modifier.would_keep(model)
    units: dict[str, dict[str, int]] = {}
    for one, keep in keeps.items():
        counts = units.setdefault(one.kind, {"places": 0, "before": 0, "after": 0})
        found = {"places": 1, "before": len(keep), "after": int(keep.sum())}
        counts.update({key: counts[key] + value for key, value in found.items()})
    if modifier.remove:
        remove_gated(model, keeps)
    after = parameter_count(model)
    return {"units": units, "parameters": {"before": before, "after": after}, "skipped": skipped}


def rows(found: Removal) -> Iterable[tuple[str, ...]]:
    """Return rows of a table: what, in how many places, units before and after."""
    if "unknown" in found:
        return
    for kind, counts in found["units"].items():
        yield _WORDS[kind], *(f"{counts[key]:,}" for key in ("places", "before", "after"))
    parameters = found["parameters"]
    yield "parameters of the model", "", *(f"{parameters[key]:,}" for key in ("before", "after"))


def notes(number: int, found: Removal) -> Iterator[str]:
    """Yield what stays although it was meant to go, in a sentence for each reason."""
    if "unknown" in found:
        yield f"#{number} removes units; which, this cannot tell: {found['unknown']}."
    reasons: dict[str, list[str]] = {}
    for key, reason in found.get("skipped", {}).items():
        reasons.setdefault(reason, []).append(key)
    for reason, keys in reasons.items():
        kinds = sorted({key.partition(" ")[0] for key in keys})
        what = ", ".join(_WORDS.get(kind, kind) for kind in kinds)
        yield f"#{number} leaves {what} in {len(keys)} places as they are: {reason}"
