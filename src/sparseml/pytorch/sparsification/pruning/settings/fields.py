"""Fields that pruning modifiers share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sparseml.pytorch.functional.patterns import MaskType as MaskType
from sparseml.pytorch.functional.patterns import Member, Pattern, Units, parse_pattern
from sparseml.pytorch.sparsification.fields import (
    Check,
    as_given,
    as_number,
    declared_fields,
    field,
    one_of,
)
from sparseml.pytorch.units import UnitGroup, positions
from sparseml.pytorch.utils.layer_kinds import to_out_in
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.utils.constants import FROM_PARAM_TOKEN
from sparseml.utils.written_number import WrittenCount

_FIXED_TOLERANCE = 1e-2


class UnsupportedError(ValueError, AssertionError):
    """A value that a modifier cannot work with; SparseML 1.x raised an AssertionError for it."""


def supported(*choices: str) -> Check:
    """A check that demands one of ``choices``, or raises an UnsupportedError that names them."""
    check = one_of(choices)

    def check_supported(name: str, value: Any) -> Any:
        try:
            return check(name, value)
        except ValueError as error:
            raise UnsupportedError(str(error)) from None

    return check_supported


def optional(check: Check) -> Check:
    """Return the check that leaves None as it is."""
    return lambda name, value: None if value is None else check(name, value)


def as_count(name: str, value: Any) -> int:
    """``value`` as a whole number, at least 1, printed as given; a ValueError for anything else."""
    try:
        number = as_number(name, value)
    except (TypeError, ValueError):
        number = math.nan
    if number != number // 1:
        raise ValueError(f"{name} must be a whole number, found {value!r}")
    if not 1 <= number < math.inf:
        raise ValueError(f"{name} must be at least 1, found {value!r}")
    return value if isinstance(value, int) else WrittenCount(value)


def as_keywords(name: str, value: Any) -> dict[str, Any]:
    """``value`` as keyword arguments; None stands for none, a TypeError for no mapping of names."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{name} must be a mapping of names to values, found {value!r}")
    return dict(value)


as_optional_keywords = optional(as_keywords)


@declared_fields()
class PatternFields:
    """What a pruner needs to take any pattern and any budget, to be given to ``declared_fields``.

    :param mask_type: what is pruned together: ``unstructured``, ``block4``, ``N:M``, ``filter``,
        ``channel``, ``RxC``, ``1xchannel``, ``channelx1``, or ``[out, in]``
    :param global_sparsity: rank the weights of all parameters together
    :param max_sparsity_per_param: with global_sparsity, no parameter gets sparser than this
    :param min_sparsity_per_param: with global_sparsity, at the end no parameter is denser than
        ``1 - min_sparsity_per_param``
    """

    mask_type: MaskType = field(as_given, default="unstructured")
    global_sparsity: bool = False
    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None


def as_fraction(name: str, value: Any) -> float:
    """``value`` as a sparsity; YAML reads numbers such as ``5e-2`` as text.

    Whole numbers are refused, as 1 may be meant as a fraction or as a percentage.

    :raises TypeError: for what is not written as a float
    :raises ValueError: outside [0, 1]
    """
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if not isinstance(value, float):
        raise TypeError(_no_fraction(name, value))
    if not 0.0 <= value <= 1.0:
        raise ValueError(_no_fraction(name, value))
    return float(value)


as_optional_fraction = optional(as_fraction)


def as_initial_sparsity(name: str, value: Any) -> float | str:
    """As :func:`as_fraction`, or the token that stands for each parameter's own sparsity."""
    return FROM_PARAM_TOKEN if value == FROM_PARAM_TOKEN else as_fraction(name, value)


def as_inner_fraction(name: str, value: Any) -> float:
    """As :func:`as_fraction`, but strictly inside (0, 1)."""
    sparsity = as_fraction(name, value)
    if sparsity in (0.0, 1.0):
        raise ValueError(f"{name} must lie strictly between 0 and 1, found {value!r}")
    return sparsity


def as_final_sparsity(name: str, value: Any) -> Any:
    """A fraction strictly inside (0, 1), or a mapping with such keys, as it was given."""
    if not isinstance(value, Mapping):
        return as_inner_fraction(name, value)
    if not value:
        raise ValueError(f"{name} must name at least one sparsity, found {value!r}")
    for sparsity in value:
        as_inner_fraction(name, sparsity)
    return value


def checked_pattern(mask_type: MaskType, selected: Sequence[NamedLayerParam]) -> Pattern:
    """Return the pattern of a ``mask_type``, tried on every parameter.

    In Python it may also be a list of :class:`~sparseml.pytorch.units.UnitGroup`, whose units then
    go as a whole, from all parameters that they have slices in.

    :raises ValueError: for an unknown ``mask_type``, or naming the parameter that it cannot cut
    """
    if isinstance(mask_type, (list, tuple)) and isinstance(next(iter(mask_type), None), UnitGroup):
        groups: Any = mask_type
        places = positions(groups, selected)
        return Units(tuple(tuple(Member(*member) for member in group) for group in places))
    pattern = parse_pattern(mask_type)
    if isinstance(pattern, Units):
        raise ValueError(
            f"mask_type {mask_type!r} is for a SnipMomentumPruningModifier, which finds them; "
            "other pruners take, in Python, a list of UnitGroup"
        )
    try:
        for one in selected:
            pattern.check(out_in_shapes([one])[0])
    except ValueError as error:
        raise ValueError(f"mask_type {mask_type!r} cannot mask {one.name}: {error}") from error
    return pattern


def require_reachable(pattern: Pattern, sparsity: float, name: str, at_most: bool = False) -> None:
    """Check that masks can have the sparsity asked for, where their pattern allows only one.

    :param name: of the field that asks, for the message
    :param at_most: of masks on their way there, which can have less
    :raises ValueError: if they cannot
    """
    full = pattern.full_sparsity
    if full == 1.0:
        return
    if sparsity > full + _FIXED_TOLERANCE or not (at_most or sparsity > full - _FIXED_TOLERANCE):
        rule = "at most " if at_most else ""
        raise ValueError(f"{name} must be {rule}{full:g} with {pattern} masks, found {sparsity:g}")


def out_in_shapes(selected: Sequence[NamedLayerParam]) -> list[torch.Size]:
    """Return the shapes of parameters as ``[out, in, *kernel]``."""
    # the shape decides; the values may be on the meta device or in parts on several processes
    empty = [torch.empty(one.param.shape, device="meta") for one in selected]
    return [
        to_out_in(one.layer, one.param_name, tensor).shape
        for one, tensor in zip(selected, empty, strict=True)
    ]


def _no_fraction(name: str, value: Any) -> str:
    hint = ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if 2 <= value <= 100:
            hint = f"; did you mean {value / 100:g}?"
        elif value in (0, 1):
            hint = f"; did you mean {float(value)}?"
    return (
        f"{name}: a sparsity is a fraction in [0, 1], written as a float such as 0.5, "
        f"found {value!r}{hint}"
    )
