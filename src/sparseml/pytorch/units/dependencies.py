"""Which parameters of a model have to lose the same channels, found by running it once."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.units.group import UnitGroup
from sparseml.pytorch.units.named import groups_from_map, require_structure_type
from sparseml.pytorch.units.probing import call_model, removal_fault
from sparseml.pytorch.units.removal import remove
from sparseml.pytorch.utils.layer_kinds import INPUTS, OUTPUTS, axis_size
from sparseml.pytorch.utils.names import canonical_named_modules, unwrap_module

_LOGGER = logging.getLogger(__name__)


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
    return removal_fault(model, groups.unit_groups, remove, example_inputs)


@dataclass(frozen=True)
class ChannelGroup:
    """Parameters of layers that share channels, by name, each list in the model's order.

    :param name: the layer that the group is named after
    :param size: how many channels there are
    :param makers: what makes the channels: weights, biases and normalisation
    :param readers: weights that read the channels
    :param scales: other vectors with an entry for each channel
    """

    name: str
    size: int
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    scales: tuple[str, ...] = ()

    def masked(self, structure_type: str) -> list[str]:
        """What is zero in a pruned channel."""
        return list(self.makers if structure_type == "filter" else self.readers)

    def following(self, structure_type: str) -> list[str]:
        """What else loses the channel."""
        others = self.readers if structure_type == "filter" else self.makers
        return [*others, *self.scales]


class _NotThinnable(Exception):
    """Why the channels of a group cannot be thinned."""


def traced_groups(
    model: nn.Module, example_inputs: Any
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The groups of ``model``, which is left in another state, and which were left out and why.

    :raises ImportError: when torch-pruning is not installed
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise ImportError(
            "finding dependent channels needs torch-pruning: "
            "pip install 'sparseml-next[structured]'"
        ) from error
    model.requires_grad_(True)
    graph = torch_pruning.DependencyGraph()
    try:
        with torch.enable_grad():
            graph.build_dependency(model, example_inputs, forward_fn=call_model, verbose=False)
    except Exception as error:  # of a model that this library cannot follow
        call_model(model, example_inputs)  # which may not take the inputs
        return [], {"channels": _unfollowed(error)}
    names = {id(layer): name for name, layer in canonical_named_modules(model) if name}
    order = {name: place for place, (name, _) in enumerate(model.named_parameters())}
    groups, skipped = [], {}
    seen: set[nn.Module] = set()
    for layer in [*graph.module2node]:
        if layer in seen or not isinstance(layer, (nn.Linear, _ConvNd)):
            continue
        root = names.get(id(layer), "")
        try:
            items = _reached(layer, graph)
            makers = (one.dep for one in items if graph.is_out_channel_pruning_fn(one.dep.handler))
            seen.update(dep.target.module for dep in makers)
            groups.append(_group(root, items, graph, names, order))
        except _NotThinnable as reason:
            skipped[root] = str(reason)
    return sorted(groups, key=lambda group: order[group.makers[0]]), skipped


def _reached(layer: nn.Module, graph: Any) -> Any:
    """All that takes part in the channels which a layer gives."""
    pruner = graph.get_pruner_of_module(layer)
    channels = list(range(pruner.get_out_channels(layer)))
    try:
        return graph.get_pruning_group(layer, pruner.prune_out_channels, channels)
    except Exception as error:  # as for channels that are joined and then mixed
        raise _NotThinnable(_unfollowed(error)) from error


def _unfollowed(error: Exception) -> str:
    return f"torch-pruning cannot follow them ({type(error).__name__}: {error})"


def _group(
    root: str, items: Any, graph: Any, names: Mapping[int, str], order: Mapping[str, int]
) -> ChannelGroup:
    size = len(items[0].idxs)
    parts: dict[str, set[str]] = {"makers": set(), "readers": set(), "scales": set()}
    for item in items:
        node = item.dep.target
        _check_indices(item, size)
        if isinstance(node.module, nn.Parameter):
            name = graph._param_to_name[node.module]
            if node.module.ndim != 1:
                raise _NotThinnable(f"{name} acts on its channels in an unknown way")
            parts["scales"].add(name)
        elif id(node.module) in names:
            makes = graph.is_out_channel_pruning_fn(item.dep.handler)
            for part, tensor in _parts_of(node.module, makes, size):
                parts[part].add(f"{names[id(node.module)]}.{tensor}")
    if not parts["readers"]:
        raise _NotThinnable("no layer reads its channels")
    in_order = {part: tuple(sorted(found, key=order.__getitem__)) for part, found in parts.items()}
    return ChannelGroup(root, size, **in_order)


def _check_indices(item: Any, size: int) -> None:
    """Each channel must stand for equally many neighbours, from the first to the last."""
    repeats = max(len(item.idxs) // size, 1)
    expected = [(place, place // repeats) for place in range(size * repeats)]
    if sorted(zip(item.idxs, item.root_idxs, strict=True)) != expected:
        raise _NotThinnable("its channels are split, or joined with others")


def _parts_of(layer: nn.Module, makes: bool, size: int) -> list[tuple[str, str]]:
    """For each tensor of ``layer`` that has the channels: its part in the group, and its name."""
    kind = type(layer).__name__
    if isinstance(layer, (nn.Linear, _ConvNd)):
        if axis_size(layer, OUTPUTS if makes else INPUTS) % size:
            raise _NotThinnable(f"a {kind} sees its channels in another order")
        depthwise = isinstance(layer, _ConvNd) and layer.groups > 1
        if depthwise and not layer.groups == layer.in_channels == layer.out_channels:
            raise _NotThinnable("a grouped convolution")
        if getattr(layer, "transposed", False):
            raise _NotThinnable("a transposed convolution")
        bias = [("makers", "bias")] if layer.bias is not None else []
        return [("makers", "weight"), *bias] if makes or depthwise else [("readers", "weight")]
    if isinstance(layer, _NormBase) and layer.affine:
        return [("makers", "weight"), ("makers", "bias")]
    if isinstance(layer, nn.PReLU):
        return [("scales", "weight")] if layer.num_parameters > 1 else []
    raise _NotThinnable(f"a {kind} acts on its channels")
