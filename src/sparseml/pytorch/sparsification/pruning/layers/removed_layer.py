"""What stands in the place of a layer that is taken out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparseml.pytorch.nn import Identity
from sparseml.pytorch.utils.layer_tracking import in_order

_LOGGER = logging.getLogger(__name__)

_Make = Callable[[Tensor], Tensor]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class RemovedLayer(Identity):
    """Hands on the first input of a layer, in the form in which the layer would give its output.

    Of a layer that gives a tuple, a list or a mapping, the first entry is the first input, other
    entries are what the layer hands on as it got it, or None. What a layer gives is asked of a copy
    of it without any values, at the first call of each kind. The same copy answers for attributes
    that the surrounding model reads.

    :param layer: that is taken out; it is neither kept nor changed
    :param name: of the layer, for messages
    """

    def __init__(self, layer: nn.Module, name: str) -> None:
        super().__init__()
        self._name = name
        # in a list, or it would count as a part of the model
        self._outlines = [_outline(layer)]
        self._forms: dict[Any, _Form] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first input, in the layer's form.

        :raises ValueError: for a layer that gives another shape than it gets
        """
        if not args and not kwargs:
            return super().forward()
        key = tuple(map(_kind, args)), tuple((name, _kind(v)) for name, v in kwargs.items())
        if key not in self._forms:
            self._forms[key] = self._learn(args, kwargs)
        return self._forms[key].filled(self._first(args, kwargs), [*args, *kwargs.values()])

    def extra_repr(self) -> str:
        return f"instead of {type(self._outlines[0]).__name__}"

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            outlines = self.__dict__.get("_outlines")
            if not outlines or name.startswith("__"):
                raise
        return getattr(outlines[0], name)

    def _first(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if args:
            return args[0]
        values = in_order(self._outlines[0], kwargs)
        return next((value for value in values if isinstance(value, Tensor)), values[0])

    @torch._disable_dynamo  # type: ignore[untyped-decorator]  # loads no compiler before it is called
    def _learn(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Form:
        tracing = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]  # this is no part of it
        try:
            return self._ask(args, kwargs)
        finally:
            torch._C._set_tracing_state(tracing)  # type: ignore[attr-defined]

    def _ask(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Form:
        outline, given = self._outlines[0], self._first(args, kwargs)
        why = ""
        ways: list[tuple[_Make, _Make]] = [(_blank, _blank)]
        if isinstance(given, Tensor):  # some layers look at values, and some kernels know no meta
            ways.append((partial(_blank, like=given), _with_values))
        for of_layer, of_inputs in ways:
            try:
                layer, inputs = _copied(outline, of_layer), _copied((args, kwargs), of_inputs)
                form, got = _answer(layer, *inputs)
            except Exception as error:  # whatever the layer does
                why = str(error)
                continue
            if isinstance(given, Tensor) and isinstance(got, Tensor) and given.shape != got.shape:
                raise ValueError(
                    f"the layer {self._name} ({type(outline).__name__}) cannot be taken out: it "
                    f"turns the shape {tuple(given.shape)} into {tuple(got.shape)}"
                )
            return form
        if self._forms:
            return next(reversed(self._forms.values()))
        _LOGGER.warning(
            "the layer %s (%s) that is taken out hands on its first input as it is, as the form of "
            "its output cannot be found out: %s",
            self._name,
            type(outline).__name__,
            why,
        )
        return _Form(None, [], {})


class _Form:
    """How the output of a layer is made of its inputs.

    :param output: what the layer gave
    :param inputs: of what it made it, in order
    :param grown: position of each input that is a cache (of keys and values) to which the layer
        adds, and the number of the layer in it
    """

    def __init__(self, output: Any, inputs: Sequence[Any], grown: Mapping[int, int]) -> None:
        self._kind = type(output)
        self._names = list(output) if isinstance(output, Mapping) else None
        self._handed_on = [
            next((i for i, one in enumerate(inputs) if one is entry and one is not None), None)
            for entry in _entries(output)[1:]
        ]
        self._grown = grown

    def filled(self, first: Any, inputs: Sequence[Any]) -> Any:
        """Return the output for the inputs, of which ``first`` is the one to hand on."""
        for i, index in self._grown.items():
            # models read off the length of a cache how far they are
            empty = first.new_zeros(first.shape[0], 1, first.shape[1], 1)
            _own_cache(inputs[i]).update(empty, empty, index)
        entries = [first, *(None if i is None else inputs[i] for i in self._handed_on)]
        if self._names is not None:
            return self._kind(**dict(zip(self._names, entries, strict=True)))
        if not issubclass(self._kind, (tuple, list)):
            return first
        return self._kind(*entries) if hasattr(self._kind, "_fields") else self._kind(entries)


def _own_cache(value: Any) -> Any:
    """Return the part of a cache that self-attention uses, or what is no such pair as it is."""
    return getattr(value, "self_attention_cache", value)


def _watch_caches(inputs: Sequence[Any]) -> dict[int, int]:
    """Return a mapping that will tell which inputs a layer adds to, and its number in them."""
    grown: dict[int, int] = {}

    def watched(position: int, update: Any, keys: Any, values: Any, index: int, **more: Any) -> Any:
        grown[position] = index
        return update(keys, values, index, **more)

    for position, value in enumerate(inputs):
        cache = _own_cache(value)
        if hasattr(cache, "get_seq_length") and hasattr(cache, "update"):
            cache.update = partial(watched, position, cache.update)
    return grown


def _entries(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        output = list(output.values())
    return (list(output) if isinstance(output, (tuple, list)) else [output]) or [None]


def _kind(value: Any) -> Any:
    """What of an input may decide about the form of the output."""
    if isinstance(value, Tensor):
        return Tensor, value.ndim
    return value if value is None or isinstance(value, bool) else type(value)


class _Copying(TorchFunctionMode):
    """Has deep copies, of whatever holds tensors, hold what ``make`` makes of them."""

    def __init__(self, make: _Make) -> None:
        super().__init__()
        self._make = make

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__deepcopy__, Tensor.clone):
            return self._make(args[0])
        return func(*args, **(kwargs or {}))


def _copied(value: Any, make: _Make, memo: Any = None) -> Any:
    with torch.no_grad(), _Copying(make):
        return copy.deepcopy(value, memo)


def _blank(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """Return zeros, without values or on the device of ``like``.

    All of floating point get the same dtype, so that they fit each other whatever autocasts them.
    """
    device, dtype = ("meta", torch.float32) if like is None else (like.device, like.dtype)
    dtype = dtype if dtype.is_floating_point and tensor.is_floating_point() else tensor.dtype
    return torch.zeros(tensor.shape, dtype=dtype, device=device)


def _with_values(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _outline(layer: nn.Module) -> nn.Module:
    """Return a copy of a layer without values and hooks, in evaluation mode."""
    hooks = [vars(module)[name] for module in layer.modules() for name in _HOOKS]
    memo: dict[int, Any] = {id(one): type(one)() for one in hooks}
    try:
        outline: nn.Module = _copied(layer, _blank, memo)
    except Exception as error:  # whatever it holds that has no copy
        _LOGGER.debug("%s cannot be copied: %s", type(layer).__name__, error)
        return nn.Identity()
    return outline.eval()


def _answer(layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[_Form, Any]:
    """Return the form of a layer's output, and the first entry of the output."""
    inputs = [*args, *kwargs.values()]
    grown = _watch_caches(inputs)
    with torch.no_grad():
        output = layer.forward(*args, **kwargs)
    return _Form(output, inputs, grown), _entries(output)[0]
