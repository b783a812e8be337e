"""The one table of layer kinds: which dimensions of their tensors are outputs and which inputs.

Most layers keep their weight as ``[out, in, *kernel]``. Transposed convolutions and Hugging Face's
``Conv1D`` keep it the other way round; :func:`to_out_in` and :func:`from_out_in` turn what belongs
to a parameter (values, masks, scores, gradients) from the one layout into the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sparseml.pytorch.utils.tensors.parametrized import computed_tensor

OUTPUTS = "outputs"
INPUTS = "inputs"

Axes = Mapping[str, tuple[str | None, ...]]


class _LayerKind(NamedTuple):
    """Layers whose tensors mean the same.

    :param fits: whether a layer is of this kind
    :param axes: tensor -> the axis of each of its dimensions, None for those that have no units
    :param sizes: attribute of the layer that repeats a size -> the axis that it counts
    """

    fits: Callable[[nn.Module], bool]
    axes: Axes
    sizes: Mapping[str, str]


def _is(*types: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda layer: isinstance(layer, types)


def _is_swapped_linear(layer: nn.Module) -> bool:
    """Whether this is the ``Conv1D`` of GPT-2; its library may not be there to ask."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


def _is_vector_norm(layer: nn.Module) -> bool:
    if not isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        return False
    return len(layer.normalized_shape) == 1


def _is_channel_prelu(layer: nn.Module) -> bool:
    return isinstance(layer, nn.PReLU) and layer.num_parameters > 1


_PLAIN: Axes = {"weight": (OUTPUTS, INPUTS), "bias": (OUTPUTS,)}
_SWAPPED: Axes = {"weight": (INPUTS, OUTPUTS), "bias": (OUTPUTS,)}
_CHANNELS = {"out_channels": OUTPUTS, "in_channels": INPUTS}
# layers that act on every channel by itself have outputs only
_PER_CHANNEL: Axes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (OUTPUTS,))
_EMBEDDING = {"embedding_dim": OUTPUTS, "num_embeddings": "weight:0"}

_KINDS = (
    _LayerKind(_is(nn.Linear), _PLAIN, {"out_features": OUTPUTS, "in_features": INPUTS}),
    _LayerKind(_is(_ConvTransposeNd), _SWAPPED, _CHANNELS),
    _LayerKind(_is(_ConvNd), _PLAIN, _CHANNELS),
    _LayerKind(_is_swapped_linear, _SWAPPED, {"nf": OUTPUTS, "nx": INPUTS}),
    _LayerKind(_is(nn.Embedding), {"weight": (None, OUTPUTS)}, _EMBEDDING),
    _LayerKind(_is(_NormBase), _PER_CHANNEL, {"num_features": OUTPUTS}),
    _LayerKind(_is_vector_norm, _PER_CHANNEL, {}),
    _LayerKind(_is_channel_prelu, _PER_CHANNEL, {"num_parameters": OUTPUTS}),
)
_UNKNOWN = _LayerKind(lambda layer: True, {}, {})


def _kind(layer: nn.Module) -> _LayerKind:
    return next((kind for kind in _KINDS if kind.fits(layer)), _UNKNOWN)


def tensor_axes(layer: nn.Module) -> dict[str, tuple[str | None, ...]]:
    """For each tensor of ``layer`` that has units along a dimension: the axis of each dimension.

    An axis is :data:`OUTPUTS` or :data:`INPUTS`; layers that act on every channel by itself
    (normalisation, PReLU) have outputs only. Empty for layers of other types.
    """
    return {
        name: axes
        for name, axes in _kind(layer).axes.items()
        if isinstance(getattr(layer, name, None), Tensor)
    }


def size_attributes(layer: nn.Module) -> dict[str, int]:
    """The attributes of ``layer`` that repeat a size, with the size that its tensors have."""
    known = {
        own_axis(name, dim) if axis is None else axis
        for name, axes in tensor_axes(layer).items()
        for dim, axis in enumerate(axes)
    }
    return {
        name: axis_size(layer, axis)
        for name, axis in _kind(layer).sizes.items()
        if axis in known and hasattr(layer, name)
    }


def axis_of(layer: nn.Module, tensor_name: str, dim: int) -> str:
    """The axis of ``layer`` along dimension ``dim`` of its tensor ``tensor_name``.

    A tensor that no other of the layer depends on (a scale of the user's own) has an axis to
    itself.
    """
    axes = tensor_axes(layer).get(tensor_name, ())
    axis = axes[dim] if dim < len(axes) else None
    return own_axis(tensor_name, dim) if axis is None else axis


def own_axis(tensor_name: str, dim: int) -> str:
    """The name of the axis that one dimension of one tensor has to itself."""
    return f"{tensor_name}:{dim}"


def axis_size(layer: nn.Module, axis: str) -> int:
    """How many units ``layer`` has along ``axis``; of a grouped convolution, in all groups.

    :raises ValueError: for an axis that the layer does not have
    """
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    for name, axes in tensor_axes(layer).items():
        for dim, found in enumerate(axes):
            if found == axis:
                # the second dimension of a convolution's weight counts what is in one group
                return int(getattr(layer, name).shape[dim]) * (groups if dim == 1 else 1)
    name, _, number = axis.partition(":")
    if number:
        return int(getattr(layer, name).shape[int(number)])
    raise ValueError(f"a {type(layer).__name__} has no {axis} to take units from")


def to_out_in(layer: nn.Module, param_name: str, tensor: Tensor, batch_dims: int = 0) -> Tensor:
    """Turn a tensor of a parameter's shape from the layer's layout to ``[out, in, *kernel]``.

    Weights of Hugging Face's ``Conv1D`` (``[in, out]``) and of transposed convolutions
    (``[in, out/groups, *kernel]``, which becomes ``[out, in/groups, *kernel]``) are turned. All
    else is returned as it is: other layers have this layout or none. The values are not copied
    where a view will do, so do not write into the result.

    :param layer: which owns the parameter
    :param param_name: of the parameter in ``layer``, such as ``weight``
    :param tensor: the parameter itself, a mask, a score, a gradient ... of any dtype. Sharded ones
        (``DTensor``) stay sharded; torch raises a RuntimeError where the groups of a transposed
        convolution cannot be shared out evenly
    :param batch_dims: how many dimensions come before those of the parameter, as the samples of
        per-sample gradients
    """
    if not is_swapped(layer, param_name):
        return tensor
    first, second = batch_dims, batch_dims + 1
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    if groups == 1:
        return tensor.transpose(first, second)
    # channels of either side go by groups, the inputs of the first before those of the second
    grouped = tensor.unflatten(first, (groups, -1))
    return grouped.transpose(second, second + 1).flatten(first, second)


def from_out_in(layer: nn.Module, param_name: str, tensor: Tensor, batch_dims: int = 0) -> Tensor:
    """Turn ``[out, in, *kernel]`` back to the layer's layout: the inverse of :func:`to_out_in`."""
    return to_out_in(layer, param_name, tensor, batch_dims)  # turning twice changes nothing


def out_in_dim(layer: nn.Module, param_name: str, dim: int) -> int:
    """Return where a dimension of a parameter's layout is in ``[out, in, *kernel]``, or back."""
    return 1 - dim if dim < 2 and is_swapped(layer, param_name) else dim


def is_swapped(layer: nn.Module, param_name: str) -> bool:
    """Whether a parameter has another layout than ``[out, in, *kernel]``."""
    tensor = computed_tensor(layer, param_name) or param_name
    return _kind(layer).axes.get(tensor, ())[:2] == (INPUTS, OUTPUTS)
