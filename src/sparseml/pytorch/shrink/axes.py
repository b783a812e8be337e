"""Which dimensions of a layer's tensors are its outputs and which its inputs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

__all__ = ["INPUTS", "OUTPUTS", "axis_of", "axis_size", "own_axis", "tensor_axes"]

OUTPUTS = "outputs"
INPUTS = "inputs"

Axes = dict[str, tuple[str | None, ...]]


def tensor_axes(layer: nn.Module) -> Axes:
    """For each tensor of ``layer`` that has units along a dimension: the axis of each dimension.

    An axis is :data:`OUTPUTS` or :data:`INPUTS`; layers that act on every channel by itself
    (normalisation, PReLU) have outputs only. Empty for layers of other types.
    """
    named = _axes_by_type(layer)
    return {
        name: axes for name, axes in named.items() if isinstance(getattr(layer, name, None), Tensor)
    }


def _axes_by_type(layer: nn.Module) -> Axes:
    if isinstance(layer, (nn.Linear, _ConvNd)):
        transposed = isinstance(layer, _ConvTransposeNd)
        weight = (INPUTS, OUTPUTS) if transposed else (OUTPUTS, INPUTS)
        return {"weight": weight, "bias": (OUTPUTS,)}
    if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"):
        return {"weight": (INPUTS, OUTPUTS), "bias": (OUTPUTS,)}
    if isinstance(layer, nn.Embedding):
        return {"weight": (None, OUTPUTS)}
    per_channel = isinstance(layer, _NormBase)
    per_channel |= isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1
    per_channel |= isinstance(layer, nn.PReLU) and layer.num_parameters > 1
    names = ("weight", "bias", "running_mean", "running_var") if per_channel else ()
    return dict.fromkeys(names, (OUTPUTS,))


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
