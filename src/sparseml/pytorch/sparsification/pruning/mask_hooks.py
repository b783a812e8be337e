"""The hooks that keep a masked model masked."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import Module, Parameter
from torch.utils.hooks import RemovableHandle

if TYPE_CHECKING:
    from sparseml.pytorch.sparsification.pruning.mask_params import ModuleParamPruningMask

__all__ = ["MaskHooks"]


class MaskHooks:
    """Registers what masks do during a training step, and takes it away again.

    Gradients are masked (or, with reintroduction, the weights put back) as soon as a parameter's
    gradient is complete, so that gradient clipping and optimizers that step during the backward
    pass see masked gradients.

    :param owner: whose masks
    :param forward: also mask the weights before each forward pass of their layer
    """

    def __init__(self, owner: ModuleParamPruningMask, forward: bool) -> None:
        self._owner = owner
        self._forward = forward
        self._layer_handles: list[RemovableHandle] = []
        self._grad_handles: dict[int, tuple[Parameter, RemovableHandle]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> MaskHooks:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied._owner = copy.deepcopy(self._owner, memo)
        copied._forward = self._forward
        # hooks of layers are copied with the layers, those of parameters are not
        copied._layer_handles = copy.deepcopy(self._layer_handles, memo)
        copied._grad_handles = {}
        return copied

    def register(self) -> None:
        """Register all hooks."""
        if self._forward:
            for index, layer in enumerate(self._owner.layers):
                hook = partial(self._before_forward, index)
                self._layer_handles.append(layer.register_forward_pre_hook(hook))
        self.follow_params(range(len(self._owner)))

    def follow_params(self, indices: Iterable[int]) -> None:
        """Register gradient hooks on parameters that are new, or that have come to need them."""
        for index in indices:
            param = self._owner._param(index)
            known, handle = self._grad_handles.get(index, (None, None))
            if known is param or not param.requires_grad:
                continue
            if handle is not None:
                handle.remove()
            hook = partial(self._after_grad, index)
            self._grad_handles[index] = (param, param.register_post_accumulate_grad_hook(hook))

    def remove(self) -> None:
        """Take all hooks away."""
        for handle in [
            *self._layer_handles,
            *(handle for _, handle in self._grad_handles.values()),
        ]:
            handle.remove()
        self._layer_handles = []
        self._grad_handles = {}

    def _before_forward(self, index: int, _layer: Module, _inputs: Any) -> None:
        self._owner.apply(index)

    def _after_grad(self, index: int, param: Tensor) -> None:
        self._owner.grad_ready(index, param)
