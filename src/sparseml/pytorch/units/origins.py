"""What a model had before units were removed from it, kept with the model.

Who removes more later counts from there: a share of the whole is one of the whole. A copy of the
model keeps it too, and :mod:`~sparseml.pytorch.units.saved` writes it beside the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sparseml.pytorch.units.attributes import constants_of, sizes_of
from sparseml.pytorch.utils.model import tell_in_files
from sparseml.pytorch.utils.names import canonical_named_modules, unwrap_module

_ATTRIBUTE = "_units_before_removal"
CALLED = {"neurons": "fc"}
"""Kinds of hidden units that go by another name among those that went."""
_IN_HEADS = ("qk", "vo")


class _Origins(dict[str, dict[str, Any]]):
    """What a model keeps; a class, so that unpickling it imports what tells of it in files."""


def origins_of(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return kind and place of units that went → how many there were (``of``), and the ``kept``.

    Kept are the numbers, among those that there were, of the units that are left, in order.
    """
    return dict(vars(model).get(_ATTRIBUTE, {}))


def set_origins(model: nn.Module, origins: Mapping[str, Mapping[str, Any]]) -> None:
    """Give a model what :func:`origins_of` another one has returned."""
    vars(model)[_ATTRIBUTE] = _Origins({key: dict(entry) for key, entry in origins.items()})


def original_size(model: nn.Module, key: str, size: int) -> int:
    """Return how many units there were in a place, now that there are ``size``."""
    return int(origins_of(model).get(key, {"of": size})["of"])


def note_removal(model: nn.Module, key: str, keep: Tensor) -> None:
    """Note that units go from a place.

    :param key: ``stream``, ``qk``, ``vo``, ``fc``, ``heads`` or ``channels``, and the place's name
    :param keep: bool ``[units]``, of those that are there before
    """
    kind, _, name = key.partition(" ")
    origins = origins_of(model)
    before = origins.get(key, {"of": len(keep), "kept": list(range(len(keep)))})
    origins[key] = _after(before, keep)
    for other in [f"{one} {name}" for one in _IN_HEADS if kind == "heads"]:
        if other in origins:  # whole heads go with their channels
            per_head = len(origins[other]["kept"]) // len(keep)
            origins[other] = _after(origins[other], keep.repeat_interleave(per_head))
    set_origins(model, origins)


def attributes_of(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return, by names of modules, the sizes and scales that these keep as attributes."""
    modules = canonical_named_modules(unwrap_module(model, root=True))
    found = {name: {**sizes_of(one), **constants_of(one)} for name, one in modules}
    return {name: values for name, values in found.items() if values}


def _lost(model: nn.Module) -> dict[str, Any]:
    units = origins_of(unwrap_module(model, root=True))
    return {"attributes": attributes_of(model), "units": units} if units else {}


tell_in_files(_lost)


def _after(before: Mapping[str, Any], keep: Tensor) -> dict[str, Any]:
    pairs = zip(before["kept"], keep.tolist(), strict=True)
    return {"of": before["of"], "kept": [number for number, stays in pairs if stays]}
