"""Reading groups of channels out of torch-pruning's dependency graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.utils.layer_kinds import INPUTS, OUTPUTS, axis_size
from sparseml.pytorch.utils.names import canonical_named_modules

__all__ = ["ChannelGroup", "call_model", "traced_groups"]


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
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(
            model, example_inputs, forward_fn=call_model, verbose=False
        )
    names = {id(layer): name for name, layer in canonical_named_modules(model) if name}
    order = {name: place for place, (name, _) in enumerate(model.named_parameters())}
    groups, skipped = [], {}
    for items in graph.get_all_groups():
        root = names.get(id(items[0].dep.target.module), "")
        try:
            groups.append(_group(root, items, graph, names, order))
        except _NotThinnable as reason:
            skipped[root] = str(reason)
    return sorted(groups, key=lambda group: order[group.makers[0]]), skipped


def call_model(model: nn.Module, example_inputs: Any) -> list[Tensor]:
    """The tensors that ``model`` returns, however they are nested."""
    if isinstance(example_inputs, Mapping):
        return list(_tensors(model(**example_inputs)))
    given = example_inputs if isinstance(example_inputs, (tuple, list)) else [example_inputs]
    return list(_tensors(model(*given)))


def _tensors(nested: Any) -> Iterator[Tensor]:
    if isinstance(nested, Tensor):
        yield nested
    values = nested.values() if isinstance(nested, Mapping) else nested
    if isinstance(nested, (Mapping, tuple, list)):
        for value in values:
            yield from _tensors(value)


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
