"""What gated units are, and the one table of layers that a residual stream runs through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparseml.pytorch.functional.shrinking.norms import weighted_layer_norm, weighted_rms_norm
from sparseml.pytorch.units.group import Member, UnitGroup
from sparseml.pytorch.utils.layer_kinds import INPUTS, OUTPUTS, tensor_axes

STREAM, QK, VO, FC = "stream", "qk", "vo", "fc"
KINDS = (STREAM, QK, VO, FC)
_SAME = 1e-4


@dataclass(frozen=True, eq=False)
class Site:
    """Where in the forward pass the gates of units multiply.

    :param layer: name of the layer
    :param where: its ``input``, its ``output``, what a ``norm`` gives (and its statistics), or
        queries and values inside of an ``attention`` layer of torch
    :param index: the unit of every slice of the last dimension there, -1 for none
    """

    layer: str
    where: str
    index: Tensor


@dataclass(frozen=True, eq=False)
class GatedUnits:
    """Units of one kind in one place, what they consist of, and where their gates multiply.

    :param kind: ``stream``, dimensions of a residual stream; ``qk`` or ``vo``, channels of queries
        and keys, or of values and what the output projection reads; ``fc``, neurons
    :param name: the layer that reads them, of a stream the first of its norms
    :param group: all slices of each unit. Channels are counted head by head
    :param pools: how many heads there are, all of the same size; 1 for other kinds
    :param sites: where the gates multiply
    :param layers: that make and read the channels of heads, or neurons, in this order
    :param width: how many channels of a head make up a unit: two where positions rotate them
    :param readers: of the heads that lose the same channels; more than one where they share the
        frequencies of rotary positions
    :param buffers: what goes with the units beside parameters, such as these frequencies
    :param fold: the scale of the scores follows the width of a head, so that the queries have to
        make up for it when that shrinks
    """

    kind: str
    name: str
    group: UnitGroup
    pools: int
    sites: tuple[Site, ...]
    layers: tuple[str, ...] = ()
    width: int = 1
    readers: tuple[str, ...] = ()
    buffers: tuple[Member, ...] = ()
    fold: bool = False

    @property
    def key(self) -> str:
        """The kind and the name, which together are unique in a model."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class GatedGroups:
    """The gated units of a model.

    :param found: in the order of the kinds, and of the model
    :param skipped: key of units that cannot be removed -> why
    """

    found: tuple[GatedUnits, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def of(self, *kinds: str) -> tuple[GatedUnits, ...]:
        """Return the units of some kinds."""
        return tuple(units for units in self.found if units.kind in kinds)


class Norm(NamedTuple):
    """A normalisation over the last dimension, in a form that takes gates.

    :param call: of the layer, its input and gates
    """

    call: Callable[[nn.Module, Tensor, Tensor], Tensor]


def _eps(layer: nn.Module, like: Tensor) -> float:
    given = getattr(layer, "variance_epsilon", getattr(layer, "eps", None))
    return float(torch.finfo(like.dtype).eps if given is None else given)


def _centred(layer: nn.Module, z: Tensor, gates: Tensor) -> Tensor:
    bias = getattr(layer, "bias", None)
    return weighted_layer_norm(z, gates, layer.weight, bias, _eps(layer, z))  # type: ignore[arg-type]


def _root_mean_square(layer: nn.Module, z: Tensor, gates: Tensor) -> Tensor:
    return weighted_rms_norm(z, gates, layer.weight, _eps(layer, z))  # type: ignore[arg-type]


def _around_one(layer: nn.Module, z: Tensor, gates: Tensor) -> Tensor:
    weight: Tensor = layer.weight + 1.0  # type: ignore[assignment, operator]
    return weighted_rms_norm(z, gates, weight, _eps(layer, z))


_NORMS = (Norm(_centred), Norm(_root_mean_square), Norm(_around_one))


@torch.no_grad()
def norm_of(layer: nn.Module) -> Norm | None:
    """Return the form of a normalisation over one dimension with a weight for every unit.

    It is known by what it does, not by its type: a layer of another library counts if it computes
    the same as one of these forms.
    """
    weight = layer._parameters.get("weight")
    leaf = weight is not None and weight.ndim == 1 and not layer._modules and len(weight) > 1
    if not leaf or "running_mean" in layer._buffers:
        return None
    assert weight is not None
    z = torch.randn(2, len(weight), generator=torch.Generator().manual_seed(0))
    z = z.to(weight.device, weight.dtype) + 0.5
    try:
        found = layer(z)
    except Exception:  # whatever a layer may do that is no norm
        return None
    if not isinstance(found, Tensor) or found.shape != z.shape or torch.equal(found, z):
        return None
    ones = torch.ones_like(weight)
    for norm in _NORMS:
        if torch.allclose(norm.call(layer, z, ones).to(found.dtype), found, _SAME, _SAME):
            return norm
    return None


class Slices(NamedTuple):
    """The slices of a layer's tensors along a residual stream, as (tensor, dimension).

    :param made: those that make up what the layer gives
    :param read: those that meet what it reads
    """

    made: tuple[tuple[str, int], ...]
    read: tuple[tuple[str, int], ...]


class _Kind(NamedTuple):
    fits: Callable[[nn.Module], bool]
    slices: Callable[[nn.Module], Slices]


def _of_attention(layer: nn.Module) -> Slices:
    read = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    made = [("out_proj.weight", 0), ("out_proj.bias", 0)]
    names = dict(layer.named_parameters())
    there = tuple((name, 1) for name in read if name in names)
    return Slices(tuple(one for one in made if one[0] in names), there)


def _of_norm(layer: nn.Module) -> Slices:
    both = tuple(
        (name, 0) for name in ("weight", "bias") if layer._parameters.get(name) is not None
    )
    return Slices(both, both)


def _of_others(layer: nn.Module) -> Slices:
    axes = tensor_axes(layer)

    def along(axis: str) -> tuple[tuple[str, int], ...]:
        return tuple((name, dims.index(axis)) for name, dims in axes.items() if axis in dims)

    return Slices(along(OUTPUTS), along(INPUTS))


_TABLE = (
    _Kind(lambda layer: isinstance(layer, nn.MultiheadAttention), _of_attention),
    _Kind(lambda layer: norm_of(layer) is not None, _of_norm),
    _Kind(lambda layer: True, _of_others),
)


def slices_of(layer: nn.Module) -> Slices:
    """Return which slices of a layer's tensors lie along what it gives, and what it reads."""
    return next(kind for kind in _TABLE if kind.fits(layer)).slices(layer)
