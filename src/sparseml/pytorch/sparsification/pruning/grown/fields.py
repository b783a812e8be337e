"""The fields of grow-and-prune: how each is checked, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparseml.pytorch.sparsification.pruning.settings.fields import as_fraction, as_inner_fraction
from sparseml.pytorch.sparsification.pruning.settings.limits import require_sensible_limits
from sparseml.utils.iterables import validate_names
from sparseml.utils.text import shown

DEFAULT_COUNT = 3
"""How many partitions there are unless it is said."""


def as_whole(name: str, value: Any) -> int:
    """``value`` as a whole number, at least 0; a ValueError for anything else."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a whole number, at least 0, found {value!r}")
    return int(value)


def as_partitions(name: str, value: Any) -> list[list[str]] | None:
    """``value`` as a list of lists of names and patterns; None stands for none."""
    if value is None:
        return None
    lists = isinstance(value, (list, tuple)) and all(isinstance(v, (list, tuple)) for v in value)
    if not lists or not value or not all(value):
        raise ValueError(
            f"{name} must be a list that has for each partition a list of names and patterns, "
            f"found {shown(value)}"
        )
    return [list(validate_names(entries, name)) for entries in value]


def as_finals(name: str, value: Any) -> Any:
    """A sparsity inside (0, 1), or a mapping from sparsities in [0, 1) to names, as given."""
    if not isinstance(value, Mapping):
        return as_inner_fraction(name, value)
    if not value:
        raise ValueError(f"{name} must name at least one sparsity, found {value!r}")
    for sparsity, entries in value.items():
        if as_fraction(name, sparsity) == 1.0:
            raise ValueError(f"{name} must be below 1, found {sparsity!r}")
        validate_names(entries, name)
    return value


def require_sense(modifier: Any) -> None:
    """Check the fields of a ``GaPPruningModifier`` against each other.

    :raises ValueError: naming those that contradict each other
    """
    owner, kind = type(modifier).__name__, modifier.partition_type
    explicit, count, grown = modifier.partitions, modifier.num_partitions, modifier.grown_partition

    def refuse(text: str) -> None:
        raise ValueError(f"{text} (of {owner})")

    if explicit is not None and kind == "random":
        refuse("partitions cannot be given with partition_type random, which draws them by lot")
    if explicit is not None and count not in (DEFAULT_COUNT, len(explicit)):
        refuse(f"num_partitions must be that of partitions, {len(explicit)}, found {count}")
    count = modifier.partition_count
    if kind == "random" and count == 1:
        refuse("partition_type random needs num_partitions of at least 2, found 1")
    if kind == "fixed":
        if grown is None or grown >= count:
            refuse(
                f"grown_partition must be 0 to {count - 1} with partition_type fixed, found {grown}"
            )
        if modifier.num_steps != 1 or modifier.first_step:
            refuse(
                "partition_type fixed has a single step: num_steps 1 and no first_step, found "
                f"{modifier.num_steps} and {modifier.first_step}"
            )
    elif grown is not None:
        refuse(f"grown_partition needs partition_type fixed, found {kind}")
    if modifier.global_sparsity and isinstance(modifier.final_sparsity, Mapping):
        refuse(
            "final_sparsity must be one number, as global_sparsity ranks the weights of all "
            f"parameters together; found {shown(modifier.final_sparsity)}"
        )
    require_sensible_limits(modifier, "final_sparsity")
