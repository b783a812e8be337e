"""Multiplying units by gates in the forward pass, beside the model: no state dict shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseml.pytorch.functional.shrinking.norms import gates_like
from sparseml.pytorch.units.gated.kinds import GatedUnits, Site, norm_of
from sparseml.pytorch.units.slim_attention import SlimAttention, make_slim, make_whole


class Gates:
    """A factor on every unit, 1 at first, in force until :meth:`detach`.

    With all gates at 1 a model computes the same as without, up to rounding; with gates at 0 and 1
    the same as when the units at 0 are removed.

    :param model: whose layers get hooks. Attention of torch becomes
        :class:`~sparseml.pytorch.units.slim_attention.SlimAttention` as long as it has gates
    :param units: which units get gates
    """

    def __init__(self, model: nn.Module, units: Iterable[GatedUnits]) -> None:
        self._model = model
        self.units = tuple(units)
        like = next(model.parameters())
        wide = torch.float64 if like.dtype == torch.float64 else torch.float32
        self.values = {
            one.key: torch.ones(one.group.size, dtype=wide, device=like.device)
            for one in self.units
        }
        self._handles: list[RemovableHandle] = []
        self._slim: list[SlimAttention] = []
        for one in self.units:
            for site in one.sites:
                self._attach(one.key, site)

    def set(self, key: str, values: Tensor) -> None:
        """Give units of a :attr:`~GatedUnits.key` other gates, ``[units]``."""
        self.values[key] = values.to(self.values[key])

    def lower(self, key: str, keep: Tensor, value: float) -> None:
        """Give the units that are not kept the gate ``value``, and all others 1."""
        kept = keep.to(self.values[key].device)
        self.set(key, torch.where(kept, 1.0, value))

    def trainable(self) -> list[Tensor]:
        """Return new gates of 1 that gradients may be taken of, in the order of the units."""
        for one in self.units:
            self.set(one.key, torch.ones_like(self.values[one.key]))
            self.values[one.key].requires_grad_(True)
        return [self.values[one.key] for one in self.units]

    def detach(self) -> None:
        """Take the gates out of the forward pass."""
        while self._handles:
            self._handles.pop().remove()
        while self._slim:
            layer = self._slim.pop()
            layer.unit_gates = {}
            make_whole(layer)

    def _attach(self, key: str, site: Site) -> None:
        layer = self._model.get_submodule(site.layer)
        index = site.index.to(self.values[key].device)

        def factor() -> Tensor:
            values = self.values[key]
            return torch.cat([values, values.new_ones(1)])[index]  # -1 is the last

        if isinstance(layer, nn.MultiheadAttention) and site.where in ("qk", "vo"):
            if not isinstance(layer, SlimAttention):
                make_slim(self._model, layer)
            assert isinstance(layer, SlimAttention)
            if layer not in self._slim:
                self._slim.append(layer)
            layer.unit_gates = {**layer.unit_gates, site.where: factor}
            return
        self._handles.append(_HOOKS[site.where](layer, factor))


def _on_input(layer: nn.Module, factor: Callable[[], Tensor]) -> RemovableHandle:
    count = 3 if isinstance(layer, nn.MultiheadAttention) else 1

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values, left = factor(), count - len(args)
        done = tuple(one * values.to(one) for one in args[:count])
        names = list(kwargs)[: max(left, 0)]
        return (*done, *args[count:]), {
            **kwargs,
            **{name: kwargs[name] * values.to(kwargs[name]) for name in names},
        }

    return layer.register_forward_pre_hook(hook, with_kwargs=True)


def _on_output(layer: nn.Module, factor: Callable[[], Tensor]) -> RemovableHandle:
    return layer.register_forward_hook(lambda _, args, output: output * factor().to(output))


def _on_norm(layer: nn.Module, factor: Callable[[], Tensor]) -> RemovableHandle:
    norm = norm_of(layer)
    assert norm is not None

    def hook(_: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        z: Tensor = next(iter((*args, *kwargs.values())))
        gates = gates_like(z, factor())
        return (norm.call(layer, z, gates) * gates).to(output.dtype)

    return layer.register_forward_hook(hook, with_kwargs=True)


_HOOKS = {"input": _on_input, "output": _on_output, "norm": _on_norm}
