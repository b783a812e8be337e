"""Which parameters of a model have to lose the same channels, found by running it once."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.group import UnitGroup
from sparseml.pytorch.units.named import groups_from_map, require_structure_type
from sparseml.pytorch.units.removal import remove
from sparseml.pytorch.units.trace import ChannelGroup, call_model, traced_groups
from sparseml.pytorch.utils.names import unwrap_module

__all__ = ["DependencyGroups", "dependency_groups"]

_LOGGER = logging.getLogger(__name__)
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class DependencyGroups:
    """The groups of a model, in the forms that modifiers and recipes take.

    :param structure_type: ``filter`` or ``channel``
    :param groups: parameters that share channels
    :param skipped: first layer of each set that cannot be thinned -> why
    """

    structure_type: str
    groups: tuple[ChannelGroup, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def param_groups(self) -> list[list[str]]:
        """Names that get the same mask, for ``StructuredPruningModifier``."""
        return [group.masked(self.structure_type) for group in self.groups]

    @property
    def params(self) -> list[str]:
        """All names in :attr:`param_groups`, for the ``params`` of the same modifier."""
        return [name for group in self.param_groups for name in group]

    @property
    def param_group_dependency_map(self) -> dict[str, list[str]]:
        """What ``LayerThinningModifier`` and ``compress_strucure_pruned_module`` take."""
        return {
            ",".join(group.masked(self.structure_type)): group.following(self.structure_type)
            for group in self.groups
        }

    def unit_groups(self, model: nn.Module) -> list[UnitGroup]:
        """The groups with the index maps that they have in ``model`` as it is now.

        :raises ValueError: when ``model`` is not the one they were found in
        """
        return groups_from_map(model, self.param_group_dependency_map, self.structure_type)


def dependency_groups(
    model: nn.Module, example_inputs: Any, structure_type: str = "filter", check: bool = True
) -> DependencyGroups:
    """Find which parameters must be pruned and thinned together, by tracing one forward pass.

    With ``filter`` the groups hold what makes the channels: weights, biases and normalisation, so
    that a pruned channel is zero when it is read. With ``channel`` they hold what reads them. The
    model itself is not changed. Needs the library torch-pruning (the extra ``structured``).

    :param example_inputs: a tensor, a tuple of positional or a dict of keyword arguments
    :param check: try the groups on a copy, and leave out those whose removal changes the outputs
        (a normalisation across channels, a channel that is not zero after its activation) or
        breaks the forward pass (sizes written into the code)
    :raises ImportError: when torch-pruning is not installed
    :raises ValueError: for another structure type
    """
    require_structure_type(structure_type)
    model = unwrap_module(model, root=True)
    groups, skipped = traced_groups(copy.deepcopy(model), example_inputs)
    found = DependencyGroups(structure_type, tuple(groups), skipped)
    if check and groups and _fault(model, found, example_inputs):
        for group in groups:
            fault = _fault(model, DependencyGroups(structure_type, (group,)), example_inputs)
            if fault:
                skipped[group.name] = fault
        kept = tuple(group for group in groups if group.name not in skipped)
        found = DependencyGroups(structure_type, kept, skipped)
    for name, reason in skipped.items():
        _LOGGER.debug("the channels of %s cannot be thinned: %s", name, reason)
    return found


def _fault(model: nn.Module, groups: DependencyGroups, example_inputs: Any) -> str:
    """What goes wrong when every second channel of ``groups`` is zeroed and removed, or ``""``."""
    probe = copy.deepcopy(model).eval()
    params = dict(probe.named_parameters())
    with torch.no_grad():
        try:
            units = groups.unit_groups(probe)
            for group in units:
                for member in group.members:
                    if not member.follows:
                        params[member.param].movedim(member.dim, 0)[member.index % 2 == 1] = 0
            before = call_model(probe, example_inputs)
            remove(probe, {group: torch.arange(group.size) % 2 == 0 for group in units})
            after = call_model(probe, example_inputs)
        except (RuntimeError, ValueError) as error:
            return f"removal breaks the model: {error}"
    return _difference(before, after)


def _difference(before: list[Tensor], after: list[Tensor]) -> str:
    for old, new in zip(before, after, strict=True):
        if old.shape != new.shape:
            return "its channels are outputs of the model"
        off = (old - new).abs().max().item() if old.is_floating_point() and old.numel() else 0.0
        if not off <= _TOLERANCE * max(1.0, old.abs().max().item()):
            return f"removal changes the outputs, by up to {off:.1e}"
    return ""
