"""Taking whole layers out of a model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.sparsification.fields import (
    as_names,
    declared_fields,
    field,
    fixed,
    ignored,
    of_types,
)
from sparseml.pytorch.sparsification.layer_selection import select_layers
from sparseml.pytorch.sparsification.modifier import (
    Loggers,
    PyTorchModifierYAML,
    ScheduledUpdateModifier,
)
from sparseml.pytorch.sparsification.pruning.layers.removed_layer import RemovedLayer
from sparseml.pytorch.utils.layers import get_layer
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.text import few


@PyTorchModifierYAML()
@declared_fields()
class LayerPruningModifier(ScheduledUpdateModifier):
    """Takes layers out from start to end; at the end they come back as they were.

    A layer that is out hands on its first input, in the form (a tensor, a tuple, ...) of its
    output. Only layers whose output has the shape of their input can go, as the blocks of a
    residual network or a Transformer; for others the first forward pass raises a ValueError. A
    layer that the model uses in several places, under other names too, goes from all of them.

    | Sample yaml:
    |   !LayerPruningModifier
    |       layers: ['blocks.3', 'blocks.7']
    |       start_epoch: 2.0

    :param layers: names and ``re:`` patterns of layers, ``__ALL_PRUNABLE__``, or ``__ALL__`` for
        every layer that has none of its own
    :param update_frequency: accepted for the sake of old recipes; layers go once
    """

    end_comparator: int = fixed(-1)
    layers: str | Iterable[str] = field(as_names)
    start_epoch: float = -1.0
    end_epoch: float = -1.0
    update_frequency: float = ignored(default=-1.0)
    _order_dependence = "it takes whole layers out of the model"

    def _set_up(self) -> None:
        self._layer_modules: dict[str, Module | None] = {}
        self._was_pruned = False

    sparsification_types = of_types(SparsificationTypes.pruning, SparsificationTypes.structured)

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Find the layers, and take them out at once if ``epoch`` lies between start and end.

        :raises RuntimeError: for an entry of ``layers`` that matches nothing
        """
        if not self._initialized:
            self._layer_modules = dict.fromkeys(select_layers(module, self.layers))
            self._was_pruned = False
        super().initialize(module, epoch, loggers, **kwargs)
        if self.steps_resolved or math.isinf(epoch):
            over = epoch >= self._end_epoch >= 0.0
            self._set_pruned(module, epoch >= self._start_epoch and not over)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Take the layers out at the start, put them back at the end."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if self.start_pending(epoch, steps_per_epoch):
            self._set_pruned(module, True)
        if epoch >= self._end_epoch >= 0.0:
            self._set_pruned(module, False)

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Act as at an infinite epoch: layers come back if there is an end, and are out if not."""
        super().finalize(module, reset_loggers, **kwargs)
        if module is None or not self._enabled:
            return
        if self._end_epoch != -1.0 or self._end_step is not None:
            self._set_pruned(module, False)
        elif not self._was_pruned:
            self._set_pruned(module, True)

    def progress_state(self) -> dict[str, Any]:
        """Return what the base class does, and the layers that are out, with their weights."""
        removed = {
            name: layer.state_dict()
            for name, layer in self._layer_modules.items()
            if layer is not None
        }
        return {**super().progress_state(), "removed": removed, "was_pruned": self._was_pruned}

    def load_structure_state(self, module: Module, state: Mapping[str, Any]) -> None:
        """Take out the layers that were out, so that the weights of a checkpoint fit."""
        super().load_structure_state(module, state)
        self._set_pruned(module, bool(state["removed"]))

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore the weights of the layers that are out.

        :raises RuntimeError: when other layers are out than then
        """
        super().load_progress_state(state)
        removed = {name: layer for name, layer in self._layer_modules.items() if layer is not None}
        if removed.keys() != state["removed"].keys():
            raise RuntimeError(
                f"the model lacks the layers {few(removed)}, but the state is of a run without "
                f"{few(state['removed'])}; call load_structure_state (or load_checkpoint) first"
            )
        self._was_pruned = state["was_pruned"]
        for name, layer in removed.items():
            layer.load_state_dict(state["removed"][name])

    def _set_pruned(self, module: Module, pruned: bool) -> None:
        for name, layer in self._layer_modules.items():
            if pruned and layer is None:
                removed = get_layer(name, module)
                if not isinstance(removed, RemovedLayer):  # by an earlier run, as a folder has it
                    _swap_everywhere(module, removed, RemovedLayer(removed, name))
                for param in removed.parameters():
                    param.grad = None  # or momentum would go on moving it
                self._layer_modules[name] = removed
            elif not pruned and layer is not None:
                _swap_everywhere(module, get_layer(name, module), layer)
                self._layer_modules[name] = None
        self._was_pruned = self._was_pruned or pruned


def _swap_everywhere(module: Module, old: Module, new: Module) -> None:
    """Put ``new`` in the place of ``old``, under every name that a model has for it."""
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)
