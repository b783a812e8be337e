"""The penalties of the activations of layers, as forward passes go by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.activations import activation_penalty
from sparseml.pytorch.sparsification.fields import as_number
from sparseml.pytorch.sparsification.layer_selection import select_layers
from sparseml.pytorch.utils.layer_tracking import ASLayerTracker
from sparseml.pytorch.utils.layers import get_layer

Layers = str | Iterable[str]
Weights = float | list[float]


def as_weights(name: str, value: Any) -> Weights:
    """A number, or a list of numbers; a ValueError for a text that is none, else a TypeError."""
    if isinstance(value, (list, tuple)):
        return [as_number(name, item) for item in value]
    return as_number(name, value)


def weights_by_entry(layers: Layers, weights: Weights) -> list[tuple[Layers, float]]:
    """Each entry of ``layers`` with its weight; all of it as one if there is only one weight.

    :raises ValueError: for as many weights as there are not entries
    :raises TypeError: for several weights with a token, which names layers in no given order
    """
    if not isinstance(weights, list):
        return [(layers, weights)]
    if isinstance(layers, str):
        raise TypeError(f"alpha must be one number for {layers}, found {weights}")
    layers = list(layers)
    if len(layers) != len(weights):
        raise ValueError(
            f"alpha must be one number or one for each of {len(layers)} layers, found {weights}"
        )
    return [([layer], weight) for layer, weight in zip(layers, weights, strict=True)]


def weights_by_layer(module: Module, layers: Layers, weights: Weights) -> dict[str, float]:
    """The weight of each layer by its name; the first entry that matches a layer counts.

    :raises RuntimeError: for an entry that matches nothing
    """
    found: dict[str, float] = {}
    for entry, weight in weights_by_entry(layers, weights):
        for name in select_layers(module, entry):
            found.setdefault(name, weight)
    return found


class WatchedPenalties:
    """Penalties of the inputs or outputs of layers in the last forward pass.

    :param weights: the weight of each layer by its name
    :param kind: one of :data:`~sparseml.pytorch.functional.activations.PENALTIES`
    :param inputs: watch what goes into the layers instead of what comes out
    """

    def __init__(
        self, module: Module, weights: Mapping[str, float], kind: str, inputs: bool
    ) -> None:
        self._weights = weights
        penalty = _penalty_of(kind)
        self._trackers = {
            name: ASLayerTracker(get_layer(name, module), inputs, not inputs, penalty, penalty)
            for name in weights
        }
        for tracker in self._trackers.values():
            tracker.enable()

    def __len__(self) -> int:
        return len(self._trackers)

    def take(self) -> list[tuple[str, float, Tensor]]:
        """Name, weight and penalty of each layer that has run since the last call."""
        found = []
        for name, tracker in self._trackers.items():
            inputs, output = tracker.tracked_input, tracker.tracked_output
            seen = output if inputs is None else inputs
            if seen is not None:
                found.append((name, self._weights[name], seen))
            tracker.clear()
        return found

    def remove(self) -> None:
        """Stop watching."""
        for tracker in self._trackers.values():
            tracker.disable()


def _penalty_of(kind: str) -> Callable[[Any], Tensor]:
    def penalty(values: Any) -> Tensor:
        tensors = values if isinstance(values, (list, tuple)) else [values]
        floats = [t for t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
        return activation_penalty(floats, kind)

    return penalty
