"""Sizes, sparsity and cost of a model's layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from sparseml.legacy.analysis.layer_desc import AnalyzedLayerDesc
from sparseml.legacy.analysis.layer_flops import layer_flops
from sparseml.pytorch.utils.layers import get_layer, get_prunable_layers
from sparseml.pytorch.utils.names import canonical_name, canonical_named_modules, unwrap_module
from sparseml.pytorch.utils.tensors.nested import iter_tensors
from sparseml.pytorch.utils.tensors.stats import count_zeros

__all__ = ["ModuleAnalyzer"]

_Shapes = tuple[tuple[int, ...], ...]


class ModuleAnalyzer:
    """Describes a model's layers: parameters, zeros, shapes, and the cost of a forward pass.

    The cost is that of the sample seen in the last pass, its batch size included. See
    :func:`~sparseml.legacy.analysis.layer_flops.layer_flops` for what is counted.

    :param module: the model
    :param enabled: watch forward passes; may be set at any time
    :param ignore_zero: leave weights that are zero out of the cost
    :param multiply_adds: count a multiplication followed by an addition as two operations
    """

    def __init__(
        self,
        module: nn.Module,
        enabled: bool = False,
        ignore_zero: bool = True,
        multiply_adds: bool = True,
    ) -> None:
        self.module = module
        self.ignore_zero = ignore_zero
        self.multiply_adds = multiply_adds
        self._descs = {
            name: AnalyzedLayerDesc(name, type(layer).__name__)
            for name, layer in canonical_named_modules(module)
        }
        self._count = 0
        self._seen = False
        self._handles: list[RemovableHandle] = []
        self.enabled = enabled

    @property
    def enabled(self) -> bool:
        """Whether forward passes are watched."""
        return bool(self._handles)

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if value == self.enabled:
            return
        while self._handles:
            self._handles.pop().remove()
        for name, layer in canonical_named_modules(self.module) if value else ():
            before, after = partial(self._before, name), partial(self._after, name)
            self._handles.append(layer.register_forward_pre_hook(before))
            self._handles.append(layer.register_forward_hook(after))

    def layer_desc(self, name: str | None = None) -> AnalyzedLayerDesc:
        """Describe a layer, or a part of the model together with all layers in it.

        :param name: name of the layer; None or empty for the whole model
        :raises RuntimeError: before the first forward pass while enabled
        :raises AttributeError: naming the nearest names, if there is no such layer
        """
        if not self._seen:
            hint = "set enabled = True and run a forward pass first"
            raise RuntimeError(f"nothing was analyzed yet: {hint}")
        name = canonical_name(name or "")
        layer = unwrap_module(get_layer(name, self.module), root=not name)
        prefix = f"{name}." if name else ""
        inside = [
            self._own_desc(inner_name, inner)
            for inner_name, inner in canonical_named_modules(self.module)
            if inner is not layer and inner_name.startswith(prefix)
        ]
        return AnalyzedLayerDesc.merge_descs(self._own_desc(name, layer), inside)

    def ks_layer_descs(self) -> list[AnalyzedLayerDesc]:
        """Describe each prunable layer in the order of execution, those that did not run first."""
        descs = [self.layer_desc(name) for name, _ in get_prunable_layers(self.module)]
        return sorted(descs, key=attrgetter("execution_order"))

    def _own_desc(self, name: str, layer: nn.Module) -> AnalyzedLayerDesc:
        """Describe what belongs to a module itself, not to modules in it."""
        params = dict(layer.named_parameters(recurse=False))
        prunable = _weight(layer)
        weights = [param.detach() for name, param in params.items() if "bias" not in name]
        is_layer = not any(True for _ in layer.children())
        return dataclasses.replace(
            self._descs[name],
            params=sum(param.numel() for param in params.values()),
            zeroed_params=sum(map(count_zeros, weights)),
            prunable_params=sum(param.numel() for param in prunable.values()),
            params_dims=_dims(params) if is_layer else None,
            prunable_params_dims=_dims(prunable) if is_layer else None,
            stride=getattr(layer, "stride", None),
        )

    def _before(self, name: str, _layer: nn.Module, _inputs: Any) -> None:
        self._count = 0 if not name else self._count + 1
        self._descs[name].execution_order = self._count

    def _after(self, name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        desc = self._descs[name]
        desc.input_shape, desc.output_shape = _shapes(inputs), _shapes(output)
        desc.flops = layer_flops(layer, inputs, output, self.ignore_zero, self.multiply_adds)
        desc.total_flops += desc.flops
        self._seen = True


def _weight(layer: nn.Module) -> dict[str, Tensor]:
    weight = getattr(layer, "weight", None)
    is_prunable = isinstance(layer, _BatchNorm) or get_prunable_layers(layer)
    is_layer = not any(True for _ in layer.children())
    return {"weight": weight} if is_prunable and is_layer and isinstance(weight, Tensor) else {}


def _dims(params: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(param.shape) for name, param in params.items()}


def _shapes(values: Any) -> _Shapes:
    return tuple(tuple(tensor.shape) for tensor in iter_tensors(values))
