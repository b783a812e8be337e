"""Watching layers during forward passes, to learn what their inputs are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils.hooks import RemovableHandle

from sparseml.pytorch.functional.second_order.input_moments import InputMoments, conv_patches
from sparseml.pytorch.sparsification.pruning.sampling.held_out import Batch
from sparseml.pytorch.utils.layer_kinds import INPUTS, tensor_axes
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.parametrized import computed_tensor

_MASKS = ("attention_mask", "decoder_attention_mask")


class InputCapture:
    """Within its block, adds the inputs of the layers that own the parameters to their moments.

    Tokens that the batch's ``attention_mask`` leaves out are left out here, too, where a layer's
    inputs are ``[*mask.shape, in]``. A layer that runs several times adds all of its inputs.

    :param params: weights of linear layers or convolutions; see :func:`require_inputs`
    :param moments: of each of them
    :param owner: the modifier, for messages
    """

    def __init__(
        self, params: Sequence[NamedLayerParam], moments: Sequence[InputMoments], owner: str
    ) -> None:
        self._params, self._moments, self._owner = params, moments, owner
        self._hooks: list[RemovableHandle] = []
        self._masks: list[tuple[str, Tensor]] = []

    def __enter__(self) -> InputCapture:
        for index, found in enumerate(self._params):
            hook = partial(self._add, index)
            self._hooks.append(found.layer.register_forward_pre_hook(hook, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def expect(self, kwargs: Mapping[str, Any]) -> None:
        """Take note of the masks of the batch that comes next.

        :param kwargs: what the model is called with
        """
        given = ((name, kwargs.get(name)) for name in _MASKS)
        self._masks = [(n, m) for n, m in given if isinstance(m, Tensor) and m.ndim == 2]

    def run(self, module: nn.Module, batch: Batch, autocast: torch.dtype | None) -> None:
        """Run the model on a batch, in a precision of its own if one is given."""
        args, kwargs, _ = batch
        self.expect(kwargs)
        device = next(module.parameters()).device.type
        with torch.no_grad(), torch.autocast(device, dtype=autocast, enabled=bool(autocast)):
            module(*args, **kwargs)

    def require_all(self) -> None:
        """Check that all layers have been run, by inputs that were finite.

        :raises RuntimeError: naming the parameter of one that has not
        :raises ValueError: naming that of one with other inputs
        """
        for found, moments in zip(self._params, self._moments, strict=True):
            if moments.count == 0:
                raise _refusal(self._owner, found, "its layer is not run")
            if not bool(moments.products.isfinite().all()):
                raise ValueError(
                    f"{self._owner}: inputs of the layer of {found.name} are not all finite"
                )

    def _add(self, index: int, layer: nn.Module, args: Any, kwargs: Any) -> None:
        values = args[0] if args else next(iter(kwargs.values()))
        moments = self._moments[index]
        if isinstance(layer, _ConvNd):
            dims = len(layer.kernel_size)
            values = values if values.ndim == dims + 2 else values.unsqueeze(0)
            parts = conv_patches(
                values,
                layer.kernel_size,
                stride=layer.stride,
                dilation=layer.dilation,
                padding=layer._reversed_padding_repeated_twice,
                padding_mode=layer.padding_mode,
            )
        else:
            parts = [self._rows(values, self._params[index].name)]
        for part in parts:
            moments.accumulate(part)

    def _rows(self, values: Tensor, name: str) -> Tensor:
        """The vectors ``[n, in]`` that count."""
        fitting = [(of, mask) for of, mask in self._masks if mask.shape == values.shape[:-1]]
        if len(fitting) > 1:  # of an encoder and a decoder
            own = _MASKS["decoder" in name]
            fitting = [one for one in fitting if one[0] == own]
        if fitting:
            return values[fitting[0][1].to(values.device) != 0]
        return values.flatten(0, -2)


def input_moments(
    found: NamedLayerParam,
    shape: Sequence[int],
    owner: str,
    advice: str = "Use fisher: gradients",
    *,
    run: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> InputMoments:
    """Return empty moments for a parameter, or a RuntimeError that names it.

    :param shape: of the weight, ``[out, in / groups, *kernel]``
    :param owner: the modifier, for messages
    :param advice: what to do where a layer has none, for messages
    :param run: inputs that are pruned together
    """
    layer = found.layer
    name = computed_tensor(layer, found.param_name) or found.param_name
    if isinstance(layer, _ConvTransposeNd) or INPUTS not in tensor_axes(layer).get(name, ()):
        reason = f"{name} of a {type(layer).__name__} is multiplied by no vectors of inputs"
        raise _refusal(owner, found, reason, advice)
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    return InputMoments(shape, groups=groups, run=run, dtype=dtype, device=device)


def _refusal(
    owner: str, found: NamedLayerParam, reason: str, advice: str = "Leave it out of params"
) -> RuntimeError:
    return RuntimeError(f"{owner} cannot look at the inputs of {found.name}: {reason}. {advice}")
