"""Watching layers during a forward pass, to get a gradient for each sample of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseml.pytorch.functional.kernels import exact_arithmetic
from sparseml.pytorch.functional.sample_gradients import (
    conv2d_sample_gradients,
    linear_sample_gradients,
)
from sparseml.pytorch.utils.params import NamedLayerParam

__all__ = ["LayerCapture", "SampleGradients"]


class LayerCapture:
    """Within its block, keeps inputs and outputs of the layers that own the parameters.

    :param params: weights of linear layers or two-dimensional convolutions
    :param batch: forward arguments; their first tensor tells the number of samples
    :param owner: the modifier, for messages
    :raises RuntimeError: naming the parameter, for another kind of layer
    """

    def __init__(self, params: Sequence[NamedLayerParam], batch: Any, owner: str) -> None:
        self._params = params
        self._owner = owner
        self._samples = _batch_size(batch)
        self._inputs: list[Tensor | None] = [None] * len(params)
        self._outputs: list[Tensor | None] = [None] * len(params)
        self._hooks: list[RemovableHandle] = []
        for found in params:
            if found.param_name != "weight" or not _is_known(found.layer):
                raise RuntimeError(
                    self._refusal(found, f"a {type(found.layer).__name__} cannot be watched")
                )

    def __enter__(self) -> LayerCapture:
        for index, found in enumerate(self._params):
            self._hooks.append(found.layer.register_forward_hook(self._keep(index)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def outputs(self) -> list[Tensor]:
        """The output of each layer.

        :raises RuntimeError: naming the parameter of a layer that was not run
        """
        for found, output in zip(self._params, self._outputs, strict=True):
            if output is None:
                raise RuntimeError(self._refusal(found, "its layer is not run"))
        return [output for output in self._outputs if output is not None]

    def gradients(self, output_grads: Sequence[Tensor], most: int) -> SampleGradients:
        """The gradients of at most ``most`` samples.

        :param output_grads: of the loss, with respect to :meth:`outputs`
        """
        inputs = [value for value in self._inputs if value is not None]
        count = min(self._samples, most)
        layers = [found.layer for found in self._params]
        return SampleGradients(layers, inputs, output_grads, self._samples, count)

    def _keep(self, index: int) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            found = self._params[index]
            if self._outputs[index] is not None:
                raise RuntimeError(self._refusal(found, "its layer runs more than once"))
            if args[0].ndim == 0 or args[0].shape[0] != self._samples:
                raise RuntimeError(
                    self._refusal(
                        found,
                        f"its layer's input of shape {tuple(args[0].shape)} does not begin with "
                        f"the {self._samples} samples of the batch",
                    )
                )
            self._inputs[index] = args[0].detach()
            self._outputs[index] = output
            # a copy goes on, so that what changes it in place does not change the one kept
            return output.clone()

        return hook

    def _refusal(self, found: NamedLayerParam, reason: str) -> str:
        return (
            f"{self._owner} cannot take the gradient of {found.name} for each sample: {reason}. "
            "Use fisher_samples: batch"
        )


class SampleGradients:
    """Gradients of each sample, computed layer by layer when they are asked for."""

    def __init__(
        self,
        layers: Sequence[nn.Module],
        inputs: Sequence[Tensor],
        output_grads: Sequence[Tensor],
        samples: int,
        count: int,
    ) -> None:
        self.count = count
        self._layers, self._inputs, self._output_grads = layers, inputs, output_grads
        self._samples = samples

    def of(self, index: int) -> Tensor:
        """Those of one parameter, ``[count, *shape]``."""
        with exact_arithmetic(self._inputs[index].device):
            return self._of(index)

    def _of(self, index: int) -> Tensor:
        layer, inputs = self._layers[index], self._inputs[index][: self.count]
        # the loss averages over samples; each by itself counts in full
        grads = self._output_grads[index][: self.count] * self._samples
        inputs = inputs.to(grads.dtype)
        if isinstance(layer, nn.Linear):
            return linear_sample_gradients(inputs, grads)
        assert isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str)
        return conv2d_sample_gradients(
            inputs,
            grads,
            _pair(layer.kernel_size),
            stride=_pair(layer.stride),
            padding=_pair(layer.padding),
            dilation=_pair(layer.dilation),
            groups=layer.groups,
        )


def _is_known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def _pair(value: Sequence[int]) -> tuple[int, int]:
    return value[0], value[1]


def _batch_size(batch: Any) -> int:
    leaves = torch.utils._pytree.tree_leaves(batch)
    sizes = [leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim]
    return int(sizes[0]) if sizes else 0
