"""The residual streams of a model: what is added to, normalised and read from layer to layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from sparseml.pytorch.units.cutting import SEVERAL, Call, reached
from sparseml.pytorch.units.gated.flow import Flow
from sparseml.pytorch.units.gated.kinds import STREAM, GatedUnits, Site, norm_of, slices_of
from sparseml.pytorch.units.group import Member, UnitGroup
from sparseml.pytorch.units.index_maps import identity
from sparseml.pytorch.utils.params import iter_layer_params
from sparseml.utils.text import few

Node = tuple[int, int]
"""The id of a parameter, and one of its dimensions."""


@dataclass
class _Classes:
    """Nodes that have to lose the same units, by union and find."""

    parent: dict[Node, Node] = field(default_factory=dict)
    mixed: dict[Node, str] = field(default_factory=dict)

    def root(self, node: Node) -> Node:
        self.parent.setdefault(node, node)
        while self.parent[node] != node:
            node = self.parent[node]
        return node

    def join(self, nodes: Iterable[Node]) -> None:
        roots = [self.root(node) for node in nodes]
        for root in roots[1:]:
            self.parent[root] = roots[0]


class Streams:
    """The residual streams of a model, and which layers write to and read from each.

    :param flow: of the model
    """

    def __init__(self, model: nn.Module, flow: Flow) -> None:
        self._model, self._flow = model, flow
        self._tensors = {id(one.param): one.param for one in iter_layer_params(model)}
        self._names: dict[int, list[str]] = defaultdict(list)
        for owned in iter_layer_params(model):
            self._names[id(owned.param)].append(owned.name)
        self._order = {key: place for place, key in enumerate(self._names)}
        self._layers = {call.layer: model.get_submodule(call.layer) for call in flow.calls}
        self._norms = {name for name, one in self._layers.items() if norm_of(one) is not None}
        self._slices = {name: slices_of(layer) for name, layer in self._layers.items()}
        self._makers = {id(call.output): call.layer for call in flow.calls}
        self._classes = _Classes()
        self._raw: dict[str, None] = {}
        for call in flow.calls:
            self._follow(call)
        others = self._layers.keys() - self._norms
        read, made = ({self._root(n, made) for n in others} for made in (False, True))
        self._streams = {self._of(n) for n in self._norms} & read & made - {None}

    def any(self) -> bool:
        """Return whether there is a stream at all."""
        return bool(self._streams)

    def writes(self, layer: str) -> bool:
        """Return whether a layer writes to a stream."""
        return self._root(layer, made=True) in self._streams

    def found(self) -> tuple[list[GatedUnits], dict[str, str]]:
        """Return the streams, and those that cannot shrink: the name of each and why."""
        kept, skipped = [], {}
        for root in self._in_order():
            nodes = [node for node in self._classes.parent if self._classes.root(node) == root]
            name = next(n for n in self._layers if n in self._norms and self._of(n) == root)
            sizes = {self._tensors[param].shape[dim] for param, dim in nodes}
            reason = next((self._classes.mixed[n] for n in nodes if n in self._classes.mixed), "")
            if not reason and len(sizes) > 1:
                reason = f"layers see it with different widths, {few(sorted(sizes))}"
            if not reason and self._is_returned(root):
                reason = "its dimensions are outputs of the model"
            if reason:
                skipped[f"{STREAM} {name}"] = reason
            else:
                kept.append(self._units(name, nodes, sizes.pop()))
        return kept, skipped

    def _in_order(self) -> list[Node]:
        norms = (self._of(name) for name in self._layers if name in self._norms)
        return list(dict.fromkeys(root for root in norms if root in self._streams and root))

    def _of(self, norm: str) -> Node | None:
        return self._root(norm, made=False)

    def _root(self, layer: str, made: bool) -> Node | None:
        nodes = self._nodes(layer, made) if layer in self._slices else []
        return self._classes.root(nodes[0]) if nodes else None

    def _nodes(self, layer: str, made: bool) -> list[Node]:
        pairs = self._slices[layer].made if made else self._slices[layer].read
        module = self._layers[layer]
        return [(id(module.get_parameter(name)), dim) for name, dim in pairs]

    def _follow(self, call: Call) -> None:
        """Join what a layer reads with what has made it, dimension by dimension."""
        reader = self._nodes(call.layer, made=False)
        if not reader or call.read.ndim < 2 or not call.read.requires_grad:
            return
        if call.read.shape[-1] != self._tensors[reader[0][0]].shape[reader[0][1]]:
            return
        self._classes.join(reader)
        own = identity(call.read.shape[-1])
        sources, known = [], {self._classes.root(reader[0])}
        for leaf in self._flow.leaves_of(call.read):
            maker = self._makers.get(id(leaf), "")
            nodes = self._nodes(maker, made=True) if maker else [(id(leaf), leaf.ndim - 1)]
            if not nodes or nodes[0][0] not in self._tensors:
                continue
            # a norm reads all that was added before, most of which is known to be one
            root = self._classes.root(nodes[0])
            if call.layer in self._norms and root in known:
                continue
            known.add(root)
            sources.append((leaf, maker, nodes))
        if len(sources) == 1 and sources[0][0] is call.read:
            channels = [own]
        else:
            channels = reached(call.read, [leaf for leaf, _, _ in sources], own) if sources else []
        for (_, maker, nodes), units in zip(sources, channels, strict=True):
            if torch.equal(units, own):
                self._classes.join([reader[0], *nodes])
                if maker not in self._norms and call.layer not in self._norms:
                    self._raw[call.layer] = None
            elif bool((units >= 0).any()) and not bool((units == SEVERAL).any()):
                for node in (reader[0], *nodes):
                    self._classes.mixed[node] = f"{call.layer} reads it in another order"

    def _is_returned(self, root: Node) -> bool:
        """Whether the first thing that the model returns, a loss left aside, is the stream."""
        first = next((out for out in self._flow.outputs if out.ndim > 0), None)
        if first is None or first.ndim < 2:
            return False
        own = identity(first.shape[-1])
        for leaf in self._flow.leaves_of(first):
            maker = self._makers.get(id(leaf), "")
            if maker and self._root(maker, made=True) == root and len(own) == leaf.shape[-1]:
                units = own if leaf is first else reached(first, [leaf], own)[0]
                if torch.equal(units, own):
                    return True
        return False

    def _units(self, name: str, nodes: list[Node], size: int) -> GatedUnits:
        index = identity(size)
        places = sorted((self._order[key], dim, key) for key, dim in nodes)
        members = [
            Member(param, dim, index) for _, dim, key in places for param in self._names[key]
        ]
        root = self._classes.root(nodes[0])
        norms = [n for n in self._layers if n in self._norms and self._of(n) == root]
        raw = [n for n in self._raw if self._root(n, made=False) == root]
        sites = [*(Site(n, "norm", index) for n in norms), *(Site(n, "input", index) for n in raw)]
        group = UnitGroup(f"stream of {name}", size, members)
        return GatedUnits(STREAM, name, group, 1, tuple(sites))
