"""The hidden states of a student and its teacher, as the models of Hugging Face have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from sparseml.pytorch.utils.layer_tracking import ASLayerTracker
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.utils.text import few


class PairedHiddenStates:
    """The hidden states that student and teacher have behind one of their layers.

    Nothing has to be set for it in the models: the part of a model beneath its head is watched,
    and asked for the hidden states of all layers if the last ones are not meant.

    :param layer: counted as in ``hidden_states``: 0 is behind the embeddings, -1 the last
    """

    def __init__(self, student: Module, teacher: Module, layer: int) -> None:
        self._layer = layer
        self._both = {
            "student": _Watcher(student, layer, _ask_in_training),
            "teacher": _Watcher(teacher, layer, _ask),
        }

    def take(self) -> tuple[Tensor, Tensor]:
        """What student and teacher had in their last pass, ``[batch, tokens, width]`` each.

        :raises ValueError: for a model without hidden states, or without that layer, and for
            different shapes
        """
        student, teacher = (seen.state(self._layer, whose) for whose, seen in self._both.items())
        if student.shape != teacher.shape:
            raise ValueError(
                f"the hidden state of the student has shape {tuple(student.shape)}, that of the "
                f"teacher {tuple(teacher.shape)}; PerLayerDistillationModifier learns from a "
                "teacher of another width"
            )
        return student, teacher

    def clear(self) -> None:
        """Forget what the models had."""
        for seen in self._both.values():
            seen.tracker.clear()

    def remove(self) -> None:
        """Take the hooks off the models."""
        for seen in self._both.values():
            seen.remove()


class _Watcher:
    """Keeps what a model gives beneath its head."""

    def __init__(self, model: Module, layer: int, ask: Callable[..., Any]) -> None:
        model = unwrap_module(model, root=True)
        beneath = getattr(model, "base_model", None)
        watched = beneath if isinstance(beneath, Module) else model
        self.model = type(model).__name__
        self.tracker = ASLayerTracker(watched, track_output=True)
        self.tracker.enable()
        self._asking: RemovableHandle | None = None
        if beneath is not None and (layer != -1 or watched is model):
            self._asking = watched.register_forward_pre_hook(ask, with_kwargs=True)

    def state(self, layer: int, whose: str) -> Tensor:
        output = self.tracker.tracked_output
        if isinstance(output, Mapping):
            names = ("hidden_states", "decoder_hidden_states")
            states = next((output[name] for name in names if output.get(name)), ())
            last = output.get("last_hidden_state") if layer == -1 else None
            if last is None and -len(states) <= layer < len(states):
                last = states[layer]
            if isinstance(last, Tensor):
                return last
            found = f"{len(states)} hidden states" if states else few(sorted(output))
        else:
            found = type(output).__name__
        raise ValueError(
            f"the {whose} ({self.model}) has no hidden state {layer}, found {found} beneath its "
            "head; it must be a model of Hugging Face's (PerLayerDistillationModifier compares "
            "layers of any model by their names), and layer must count from 0, behind the "
            "embeddings, or backwards from -1, the last"
        )

    def remove(self) -> None:
        self.tracker.disable()
        if self._asking is not None:
            self._asking.remove()


def _ask(_: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args, {**kwargs, "output_hidden_states": True}


def _ask_in_training(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # an evaluation may collect all that the model gives
    return _ask(module, args, kwargs) if torch.is_grad_enabled() else None
