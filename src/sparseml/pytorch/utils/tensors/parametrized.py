"""Tensors of layers that are computed anew from other parameters (weight norm and the like)."""

from __future__ import annotations

import copy
import logging
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

_PLACE = "parametrizations"
_V, _ORIGINAL = "_v", "_orig"  # as the hooks of torch.nn.utils name what they compute from
_SEED = 0
_WARNED: WeakSet[nn.Module] = WeakSet()
_LOGGER = logging.getLogger(__name__)


class Original(NamedTuple):
    """The parameter that may be masked in the place of a tensor, or why there is none.

    :param name: of the parameter in the layer, with dots in it; None if no one will do
    :param reason: why not
    """

    name: str | None
    reason: str = ""


def parameter_of(layer: nn.Module, name: str) -> nn.Parameter:
    """Return a parameter of a layer by its name, which may be that of an original.

    When a parametrization has been removed, the tensor that was computed stands for its originals.

    :raises AttributeError: if there is no such parameter
    """
    place: Any = layer
    if name not in layer._parameters and (tensor := computed_tensor(layer, name)) is not None:
        if tensor in getattr(layer, _PLACE, {}):
            place, tensor = layer.get_submodule(f"{_PLACE}.{tensor}"), name.rpartition(".")[2]
        name = tensor
    found: nn.Parameter = getattr(place, name)
    return found


def computed_tensor(layer: nn.Module, name: str) -> str | None:
    """Return the tensor that is computed of the parameter ``name``; None if it is a plain one."""
    if name.startswith(f"{_PLACE}."):
        return name.split(".")[1]
    tensor, mark, suffix = name.rpartition("_")
    if mark + suffix not in (_V, "_g", _ORIGINAL) or {name, tensor} <= layer._parameters.keys():
        return None
    return tensor if isinstance(getattr(layer, tensor, None), Tensor) else None


def original_of(layer: nn.Module, tensor: str) -> Original:
    """Return which parameter of a layer means the same for masks as its ``tensor``.

    That is the tensor itself, if it is a parameter, or what it is computed from, as long as a zero
    there is a zero of the tensor at the same place: what ``weight_norm`` calls v, the original of
    ``spectral_norm``, but not that of ``orthogonal``.
    """
    parametrization = getattr(layer, _PLACE, {})
    if tensor in parametrization:
        return _tried(parametrization[tensor], tensor)
    if tensor in layer._parameters:
        return Original(tensor)
    for name in (tensor + _V, tensor + _ORIGINAL):
        if layer._parameters.get(name) is not None:
            return Original(name)
    return Original(None, f"{tensor} is no parameter")


def rescued(layer: nn.Module, name: str, mask: Tensor) -> Tensor | None:
    """Return what of a parameter must stay, as weight norm divides by the norm of a row of it.

    That is the largest entry of each row of which ``mask`` (bool, True = keep) leaves nothing.

    :return: bool, of the mask's shape; None where all is well
    """
    dims = _norm_dims(layer, name)
    if dims is None or bool((alive := mask.any(dim=dims, keepdim=True)).all()):
        return None
    if layer not in _WARNED:
        _WARNED.add(layer)
        _LOGGER.warning(
            "%d rows of %s (of a %s) would be zero, by whose norm weight norm divides: the largest "
            "weight of each stays; torch.nn.utils.parametrize.remove_parametrizations would help",
            int((~alive).sum()),
            name,
            type(layer).__name__,
        )
    sizes = parameter_of(layer, name).detach().abs()
    return ~alive & (sizes == sizes.amax(dim=dims, keepdim=True))


def _norm_dims(layer: nn.Module, name: str) -> list[int] | None:
    """Return the dimensions over which weight norm takes the norm of ``name``, if it does."""
    tensor = computed_tensor(layer, name)
    if tensor is None or not name.endswith((_V, ".original1")):
        return None
    if name.endswith(_V):
        norms: Any = getattr(layer, f"{tensor}_g")
    else:
        parametrization: Any = getattr(layer, _PLACE, {tensor: [None]})[tensor]
        if type(parametrization[0]).__name__ != "_WeightNorm":
            return None
        norms = parametrization.original0
    shape = norms.shape or [1] * parameter_of(layer, name).ndim
    return [dim for dim, size in enumerate(shape) if size == 1]


_KNOWN: WeakKeyDictionary[nn.Module, tuple[int, Original]] = WeakKeyDictionary()


def _tried(parametrization: nn.Module, tensor: str) -> Original:
    assert isinstance(parametrization, ParametrizationList)
    length, known = _KNOWN.get(parametrization, (0, Original(None)))
    if length != len(parametrization):
        known = _find(parametrization, tensor)
        _KNOWN[parametrization] = len(parametrization), known
    return known


def _find(parametrization: ParametrizationList, tensor: str) -> Original:
    kinds = ", ".join(type(one).__name__ for one in parametrization)
    originals = [name for name, _ in parametrization.named_parameters(recurse=False)]
    try:
        for name in reversed(originals):  # the v of weight norm comes after the g
            if _keeps_zeros(parametrization, name):
                return Original(f"{_PLACE}.{tensor}.{name}")
    except Exception as error:  # whatever a parametrization of the user's raises
        return Original(None, f"{tensor} is computed by {kinds}, which failed: {error}")
    return Original(
        None,
        f"{tensor} is computed by {kinds}, by which a zero of {' or '.join(originals)} "
        f"is no zero of {tensor}",
    )


def _keeps_zeros(parametrization: ParametrizationList, name: str) -> bool:
    """Whether zeros of an original are zeros of the tensor at the same places: tried at random."""
    tried = copy.deepcopy(parametrization).eval()
    generator = torch.Generator().manual_seed(_SEED)
    empty = any(tensor.is_meta for tensor in [*tried.parameters(), *tried.buffers()])
    tried = tried.to_empty(device="cpu") if empty else tried
    with torch.no_grad():
        for key, tensor in [*tried.named_parameters(), *tried.named_buffers()]:
            if (empty or key.startswith("original")) and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        original: Tensor = getattr(tried, name)
        keep = torch.rand(original.shape, generator=generator) < 0.5
        values = original.clone()
        for kept in (keep, ~keep):
            original.copy_(values.where(kept.to(values.device), 0.0))
            result = tried()
            if result.shape != original.shape or bool((result[original == 0] != 0).any()):
                return False
    return True
