"""Seeing what goes into a layer and what comes out of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_Function = Callable[[Any], Any]


def in_order(layer: nn.Module, named: Mapping[str, Any]) -> list[Any]:
    """Return inputs given by keyword in the order of a layer's arguments, unknown ones last."""
    names = list(inspect.signature(layer.forward).parameters)
    known = [name for name in names if name in named]
    return [named[name] for name in [*known, *(name for name in named if name not in known)]]


class _Watch:
    """The hook before or after a layer. A copy of the layer, pickled or deep, gets a blind one."""

    def __init__(self, tracker: ASLayerTracker | None = None) -> None:
        self._tracker = tracker

    def __call__(
        self, layer: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], *output: Any
    ) -> None:
        if self._tracker is None:
            return
        if output:
            self._tracker._saw_output(*output)
        else:
            self._tracker._saw_input(inputs or tuple(in_order(layer, named)))

    def __reduce__(self) -> tuple[type[_Watch], tuple[()]]:
        return _Watch, ()


class ASLayerTracker:
    """Keeps what went into a layer, and what came out of it, in the last forward pass.

    Gradients flow through what is kept. A layer that runs several times in a pass is seen the last
    time. Inputs are seen before the layer runs; of a layer that works in place, or holds one that
    does, a copy is taken. The output is kept as it is, so what comes after the layer may change it
    in place; ``output_func=Tensor.clone`` keeps a copy.

    :param layer: the layer
    :param track_input: keep the tuple of positional inputs; without any, that of the inputs given
        by keyword, in the order of the layer's arguments
    :param track_output: keep the output
    :param input_func: keep what this makes of the tuple of inputs instead
    :param output_func: keep what this makes of the output instead
    """

    def __init__(
        self,
        layer: nn.Module,
        track_input: bool = False,
        track_output: bool = False,
        input_func: _Function | None = None,
        output_func: _Function | None = None,
    ) -> None:
        self._layer = layer
        self._track_input = track_input
        self._track_output = track_output
        self._input_func = input_func
        self._output_func = output_func
        self._handles: list[RemovableHandle] = []
        self.clear()

    @property
    def tracked_input(self) -> Any:
        """The inputs of the last pass, None before it."""
        return self._tracked_input

    @property
    def tracked_output(self) -> Any:
        """The output of the last pass, None before it."""
        return self._tracked_output

    def enable(self) -> None:
        """Watch the layer from now on."""
        if self._handles:
            return
        if self._track_input:
            self._handles.append(
                self._layer.register_forward_pre_hook(_Watch(self), with_kwargs=True)
            )
        if self._track_output:
            self._handles.append(self._layer.register_forward_hook(_Watch(self), with_kwargs=True))

    def disable(self) -> None:
        """Stop watching, and forget what was seen."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.clear()

    def clear(self) -> None:
        """Forget what was seen."""
        self._tracked_input: Any = None
        self._tracked_output: Any = None

    def _saw_input(self, inputs: tuple[Any, ...]) -> None:
        if any(getattr(module, "inplace", False) for module in self._layer.modules()):
            inputs = tuple(x.clone() if isinstance(x, Tensor) else x for x in inputs)
        self._tracked_input = inputs if self._input_func is None else self._input_func(inputs)

    def _saw_output(self, output: Any) -> None:
        self._tracked_output = output if self._output_func is None else self._output_func(output)
