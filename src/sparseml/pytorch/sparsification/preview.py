"""What a modifier would act on in a model, found out without changing either."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Module

from sparseml.pytorch.sparsification.param_selection import select_params
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.utils.params import NamedLayerParam

__all__ = ["preview_selection", "selecting_entries"]


def selecting_entries(modifier: Any) -> list[str]:
    """The tokens, names and patterns by which a modifier selects parameters, in their order.

    :param modifier: any modifier; one that selects no parameters has none
    """
    if isinstance(modifier, BasePruningModifier):
        entries: str | Iterable[str] = modifier._selecting_entries()
    else:
        entries = getattr(modifier, "params", None) or []
    return [entries] if isinstance(entries, str) else list(entries)


def preview_selection(modifier: Any, module: Module) -> list[NamedLayerParam]:
    """The parameters that a modifier would select, checked as far as initialising checks them.

    :param module: the model; it may be on the meta device, as only names and shapes count
    :raises RuntimeError: for an entry that matches nothing
    :raises ValueError: if nothing is selected at all, or the masks do not fit the parameters
    """
    if not isinstance(modifier, BasePruningModifier):
        strict = getattr(modifier, "params_strict", True)
        return select_params(module, selecting_entries(modifier), strict)
    probe = copy.copy(modifier)
    probe._initialized = False  # what is deleted while initialised detaches itself from its model
    selected = probe._create_named_layers_and_params(module)
    names = [found.name for found in selected]
    shapes: list[Any] = [torch.zeros(()).expand(found.param.shape) for found in selected]
    creator = probe._get_mask_creator(names, shapes)
    if hasattr(probe, "_require_reachable"):
        probe._require_reachable(creator)
    return selected
