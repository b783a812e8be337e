"""Telling which parameters a modifier is going to prune."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from torch.nn import Module
from torch.nn.parameter import is_lazy

from sparseml.pytorch.sparsification.param_selection import left_out, select_params
from sparseml.pytorch.utils.params import NamedLayerParam, iter_layer_params
from sparseml.utils.text import few, shortened

_MOST_ENTRIES = 12

_LOGGER = logging.getLogger(__name__)


def require_values(selected: Sequence[NamedLayerParam]) -> None:
    """Check that the parameters have values that can be ranked.

    :raises ValueError: naming those on the meta device, those of lazy layers that have not seen
        an input, and those of a dtype without arithmetic or fractions (integers, 8-bit floats)
    """
    lazy = [found.name for found in selected if is_lazy(found.param)]
    empty = [found.name for found in selected if found.param.is_meta]
    for names, text in (
        (lazy, "of lazy layers have no values before the first forward pass, run one first"),
        (empty, "on the meta device have no values to prune, load them first"),
    ):
        if names:
            raise ValueError(f"parameters {text}: {few(names)}")
    others = [f"{found.name} ({found.param.dtype})" for found in selected if not _ranks(found)]
    if others:
        raise ValueError(
            "only parameters of floating point with at least 16 bits can be pruned, found "
            f"{few(others)}"
        )


def log_selection(modifier: Any, module: Module, selected: Sequence[NamedLayerParam]) -> None:
    """Log what a modifier prunes and what that takes, and warn of what masks do not fit."""
    name, entries = type(modifier).__name__, modifier.selecting_entries()
    _LOGGER.info("%s %s", name, describe_selection(module, entries, selected))
    if out := left_out(module, entries, modifier.exclude):
        dense = few([f"{one} ({reason})" for one, reason in out.items()], between="; ")
        _LOGGER.warning("%s leaves dense what it cannot mask: %s", name, dense)
    if takes := modifier.method.describe(modifier.problem(module)):
        _LOGGER.info("%s: %s", name, takes)


def describe_selection(
    module: Module, entries: str | Iterable[str], selected: Sequence[NamedLayerParam]
) -> str:
    """How many tensors and weights each entry of ``params`` catches, and what is peculiar.

    :param entries: tokens, names and patterns
    :param selected: all that they select together, each parameter once
    """
    listed = [entries] if isinstance(entries, str) else list(dict.fromkeys(entries))
    parts = [f"prunes {_counts(selected)}"]
    names = [found.name for found in selected]
    if len(listed) > _MOST_ENTRIES:
        parts.append(f"matched by {len(listed)} names and patterns")
    elif listed != names or len(listed) > 1:
        known = {id(found.param) for found in selected}
        caught = {entry: select_params(module, [entry], strict=False) for entry in listed}
        counts = (
            f"{shortened(entry)}: {_counts([one for one in found if id(one.param) in known])}"
            for entry, found in caught.items()
        )
        parts.append(f"matched by {', '.join(counts)}")
    tied = _tied_names(module, selected)
    if tied:
        parts.append(f"tied weights count once: {few(tied)}")
    frozen = [found.name for found in selected if not found.param.requires_grad]
    if frozen:
        parts.append(f"{len(frozen)} of them frozen, pruned all the same: {few(frozen)}")
    return "; ".join(parts)


def _ranks(found: NamedLayerParam) -> bool:
    dtype = found.param.dtype
    return dtype.is_complex or (dtype.is_floating_point and dtype.itemsize > 1)


def _counts(selected: Sequence[NamedLayerParam]) -> str:
    tensors, weights = len(selected), sum(found.param.numel() for found in selected)
    return f"{tensors} tensor{'' if tensors == 1 else 's'} of {weights} weights"


def _tied_names(module: Module, selected: Sequence[NamedLayerParam]) -> list[str]:
    names: dict[int, list[str]] = {id(found.param): [] for found in selected}
    for found in iter_layer_params(module):
        if id(found.param) in names:
            names[id(found.param)].append(found.name)
    return [" = ".join(alike) for alike in names.values() if len(alike) > 1]
