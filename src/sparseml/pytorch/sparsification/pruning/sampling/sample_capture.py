"""Watching layers during a forward pass, to get a gradient for each sample of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseml.pytorch.functional.second_order.linalg import exact_arithmetic
from sparseml.pytorch.functional.second_order.sample_gradients import (
    conv2d_sample_gradients,
    linear_sample_gradients,
)
from sparseml.pytorch.utils.params import NamedLayerParam

_MOST_VALUES = 1 << 28  # of one parameter's gradients at a time


@dataclass(frozen=True)
class Gradients:
    """The gradients of one batch.

    :param count: how many there are of each parameter
    :param of: gives those of one parameter, ``[count, *shape]``
    """

    count: int
    of: Callable[[int], Tensor]


class LayerCapture:
    """Within its block, keeps inputs and outputs of the layers that own the parameters.

    :param params: weights of linear layers or two-dimensional convolutions
    :param batch: positional and keyword arguments of the forward pass; their first tensor tells the
        number of samples
    :param owner: the modifier, for messages
    :raises RuntimeError: naming the parameter, for another kind of layer
    """

    def __init__(self, params: Sequence[NamedLayerParam], batch: Any, owner: str) -> None:
        self._params, self._batch = params, batch
        self._owner = owner
        self._alike = False
        leaves = torch.utils._pytree.tree_leaves(batch)
        sizes = [leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim]
        self.samples = int(sizes[0]) if sizes else 0
        self._inputs: list[Tensor | None] = [None] * len(params)
        self._outputs: list[Tensor | None] = [None] * len(params)
        self._hooks: list[RemovableHandle] = []
        for found in params:
            if found.param_name != "weight" or not _is_known(found.layer):
                raise self._refusal(found, f"a {type(found.layer).__name__} cannot be watched")

    def __enter__(self) -> LayerCapture:
        for index, found in enumerate(self._params):
            self._hooks.append(found.layer.register_forward_hook(partial(self._keep, index)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def outputs(self) -> list[Tensor]:
        """The output of each layer; a RuntimeError names the parameter of one that was not run."""
        for found, output in zip(self._params, self._outputs, strict=True):
            if output is None:
                raise self._refusal(found, "its layer is not run")
        return [output for output in self._outputs if output is not None]

    def require_samples_first(self, run: Callable[..., Any]) -> None:
        """Check that the first dimension of all inputs is of samples, in a pass of one sample less.

        That tells where another is as large, as where there are as many tokens as samples.

        :param run: is called with the arguments of the forward pass
        :raises RuntimeError: naming the parameter of a layer whose inputs begin with something else
        """
        if not self._alike:
            return

        def fewer(leaf: Any) -> Any:
            samples = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == self.samples
            return leaf[:-1] if samples else leaf

        args, kwargs = torch.utils._pytree.tree_map(fewer, tuple(self._batch))
        with LayerCapture(self._params, (args, kwargs), self._owner), torch.no_grad():
            run(*args, **kwargs)

    def gradients(self, output_grad: Tensor, index: int, rows: slice) -> Tensor:
        """The gradients of one parameter for some of the samples, ``[count, *shape]``.

        :param output_grad: of the loss, with respect to that one of :meth:`outputs`
        """
        layer, inputs = self._params[index].layer, self._inputs[index]
        assert inputs is not None
        # the loss averages over samples; each by itself counts in full
        grads = output_grad[rows] * self.samples
        inputs = inputs[rows].to(grads.dtype)
        with exact_arithmetic(inputs.device):
            if isinstance(layer, nn.Linear):
                return linear_sample_gradients(inputs, grads)
            assert isinstance(layer, nn.Conv2d)
            names = ("kernel_size", "stride", "padding", "dilation", "groups")
            how = {name: getattr(layer, name) for name in names}
            return conv2d_sample_gradients(inputs, grads, **how)

    def parts(self, output_grads: Callable[[int], Tensor], most: int) -> list[Gradients]:
        """The gradients of up to ``most`` samples, so many at a time as memory should hold.

        :param output_grads: gives those of one of :meth:`outputs`, ``[1, samples, ...]``
        """
        count = min(self.samples, most)
        step = max(1, _MOST_VALUES // max(one.param.numel() for one in self._params))

        def part(start: int) -> Gradients:
            rows = slice(start, min(start + step, count))
            return Gradients(
                rows.stop - start, lambda index: self.gradients(output_grads(index)[0], index, rows)
            )

        return [part(start) for start in range(0, count, step)]

    def _keep(self, index: int, layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        found = self._params[index]
        if self._outputs[index] is not None:
            raise self._refusal(found, "its layer runs more than once")
        if args[0].ndim == 0 or args[0].shape[0] != self.samples:
            reason = f"its layer's input of shape {tuple(args[0].shape)} does not begin with the "
            raise self._refusal(found, reason + f"{self.samples} samples of the batch")
        linear = isinstance(layer, nn.Linear) and self.samples > 1
        self._alike |= linear and self.samples in args[0].shape[1:-1]
        self._inputs[index] = args[0].detach()
        self._outputs[index] = output
        # a copy goes on, so that what changes it in place does not change the one kept
        return output.clone()

    def _refusal(self, found: NamedLayerParam, reason: str) -> RuntimeError:
        return RuntimeError(
            f"{self._owner} cannot take the gradient of {found.name} for each sample: {reason}. "
            "Use fisher_samples: batch"
        )


def _is_known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)
