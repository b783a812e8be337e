"""Making one layer smaller: what happens to each of its tensors when units go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.units.entries import keep_entries, require_own_gradients, require_whole
from sparseml.pytorch.utils.layer_kinds import INPUTS, OUTPUTS, axis_size, own_axis, tensor_axes
from sparseml.pytorch.utils.saving.resizing import set_layer_sizes


class LayerCut:
    """What a layer keeps, collected first and carried out at the end.

    :param name: the layer's name, for messages
    """

    def __init__(self, layer: nn.Module, name: str = "") -> None:
        self.layer = layer
        self.name = name or type(layer).__name__
        self._keeps: dict[str, Tensor] = {}
        self._claimed: dict[str, Tensor] = {}

    def keep(self, axis: str, mask: Tensor, claimed: Tensor | None = None) -> None:
        """Keep what is True in ``mask``, one bool per unit of ``axis``.

        :param claimed: which of these units the mask decides on; True where it is False. Others
            may decide on the rest. None: on all
        :raises ValueError: for a mask of another size, or other than one given before
        """
        size = axis_size(self.layer, axis)
        if mask.shape != (size,):
            raise ValueError(
                f"{self.name} has {size} {axis}, the mask has shape {tuple(mask.shape)}"
            )
        claimed = torch.ones_like(mask) if claimed is None else claimed
        before = self._keeps.get(axis, torch.ones_like(mask))
        claimed_before = self._claimed.get(axis, torch.zeros_like(mask))
        if bool((before != mask)[claimed & claimed_before].any()):
            raise ValueError(
                f"two groups want to take different {axis} from {self.name}; where a slice belongs "
                "to several groups, all must keep it or none"
            )
        self._keeps[axis] = before & mask
        self._claimed[axis] = claimed_before | claimed

    def tensors(self) -> dict[str, dict[int, Tensor]]:
        """For each tensor of the layer that shrinks: dimension -> bool mask of what stays.

        :raises ValueError: when a grouped convolution would get groups of different sizes, or an
            embedding another padding row
        """
        row, rows = getattr(self.layer, "padding_idx", None), self._keeps.get(own_axis("weight", 0))
        if row is not None and rows is not None and not bool(rows[: row + 1].all()):
            raise ValueError(f"{self.name} must keep its rows up to number {row}, the padding")
        keeps = self._completed()
        found: dict[str, dict[int, Tensor]] = {}
        for name, axes in tensor_axes(self.layer).items():
            found[name] = {dim: keeps[axis] for dim, axis in enumerate(axes) if axis in keeps}
            if self._grouped and 1 in found[name]:
                # this dimension counts what is in one group, the same in all that stay
                found[name][1] = self._by_group(found[name][1])[self._groups_that_stay()][0]
        for axis, keep in keeps.items():
            name, _, number = axis.partition(":")
            if number:
                found.setdefault(name, {})[int(number)] = keep
        return {
            name: {dim: keep for dim, keep in dims.items() if not bool(keep.all())}
            for name, dims in found.items()
        }

    def groups_left(self) -> int | None:
        """How many groups a convolution keeps; None for what has no groups."""
        return int(self._groups_that_stay().sum()) if self._grouped else None

    def set_sizes(self, groups: int | None) -> None:
        """Set the layer's size attributes to what its tensors have."""
        if groups is not None:
            self.layer.groups = groups  # type: ignore[assignment]
        set_layer_sizes(self.layer)

    @property
    def _grouped(self) -> bool:
        channels = self._keeps.keys() & {OUTPUTS, INPUTS}
        return isinstance(self.layer, _ConvNd) and self.layer.groups > 1 and bool(channels)

    def _by_group(self, mask: Tensor) -> Tensor:
        return mask.reshape(int(self.layer.groups), -1)  # type: ignore[arg-type]

    def _groups_that_stay(self) -> Tensor:
        """A group goes when all of its inputs or all of its outputs do."""
        given = [self._keeps[axis] for axis in (OUTPUTS, INPUTS) if axis in self._keeps]
        stays = torch.stack([self._by_group(mask).any(dim=1) for mask in given])
        if not torch.equal(stays.all(dim=0), stays.any(dim=0)):
            raise ValueError(f"{self.name} would lose the inputs of other groups than the outputs")
        return stays[0]

    def _completed(self) -> dict[str, Tensor]:
        """The masks, with the other side of the groups that a grouped convolution loses."""
        if not self._grouped:
            return self._keeps
        stays = self._groups_that_stay()
        keeps = dict(self._keeps)
        for axis in (OUTPUTS, INPUTS):
            if axis not in keeps:
                size = axis_size(self.layer, axis) // len(stays)
                keeps[axis] = stays.repeat_interleave(size)
        first, second = tensor_axes(self.layer)["weight"]
        counts = self._by_group(keeps[str(first)])[stays].sum(dim=1)
        inner = self._by_group(keeps[str(second)])[stays]
        if bool((counts != counts[:1]).any()) or bool((inner != inner[:1]).any()):
            raise ValueError(
                f"the {len(stays)} groups of {self.name} would become different from each other; "
                "prune whole groups, or the same in each"
            )
        return keeps


def shrink_layer(
    layer: nn.Module,
    outputs: Tensor | None = None,
    inputs: Tensor | None = None,
    optimizer: Any = None,
) -> None:
    """Remove outputs and inputs of one layer, in place.

    Knows ``Linear``, convolutions of any dimension (transposed and grouped ones too), batch and
    instance normalisation, ``LayerNorm`` over one dimension, ``PReLU``, ``Embedding`` (its width)
    and Hugging Face's ``Conv1D``. Weight, bias, running statistics, gradients, the optimizer's
    state and size attributes follow. Nothing is said to the layers before and after.

    :param outputs: bool mask over the outputs, or indices of those to keep
    :param inputs: the same for the inputs
    :raises ValueError: for masks that do not fit the layer
    """
    cut = LayerCut(layer)
    for axis, kept in ((OUTPUTS, outputs), (INPUTS, inputs)):
        if kept is not None:
            cut.keep(axis, _as_mask(kept, axis_size(layer, axis)))
    carry_out([cut], optimizer)


def _as_mask(kept: Tensor, size: int) -> Tensor:
    if kept.dtype == torch.bool:
        return kept.cpu()
    mask = torch.zeros(size, dtype=torch.bool)
    mask[kept.cpu()] = True
    return mask


def carry_out(
    cuts: list[LayerCut], optimizer: Any = None, vectors: Iterable[tuple[Tensor, Tensor]] = ()
) -> int:
    """Shrink several layers together; nothing is changed when any of them cannot be.

    :param vectors: further tensors ``[units]`` that belong to no layer, each with what it keeps
    :return: how many entries of the layers' parameters and buffers were removed
    :raises ValueError: when a tensor that several layers own would shrink differently in each, or
        is computed from others
    :raises RuntimeError: with an optimizer, when ``DistributedDataParallel`` holds the parameters;
        for sharded parameters in any case
    """
    planned: dict[int, tuple[Tensor, dict[int, Tensor]]] = {}
    for cut in cuts:
        for name, keeps in cut.tensors().items():
            tensor = getattr(cut.layer, name)
            require_whole(f"{cut.name}.{name}", tensor)
            if keeps and name not in {**cut.layer._parameters, **cut.layer._buffers}:
                raise ValueError(f"{cut.name}.{name} is computed from other tensors (parametrized)")
            _, others = planned.setdefault(id(tensor), (tensor, keeps))
            if others.keys() != keeps.keys() or any(
                not torch.equal(others[dim], keeps[dim]) for dim in keeps
            ):
                raise ValueError(f"{cut.name}.{name} is tied to a weight that shrinks differently")
    vectors = [(vector, mask) for vector, mask in vectors if id(vector) not in planned]
    if optimizer is not None:
        shrinking = [tensor for tensor, keeps in planned.values() if keeps]
        require_own_gradients([*shrinking, *(vector for vector, _ in vectors)])
    groups = [cut.groups_left() for cut in cuts]
    removed = 0
    for tensor, keeps in planned.values():
        before = tensor.numel()
        keep_entries(tensor, keeps, optimizer)
        removed += before - tensor.numel()
    for vector, mask in vectors:
        keep_entries(vector, {0: mask}, optimizer)
    for cut, left in zip(cuts, groups, strict=True):
        cut.set_sizes(left)
    return removed
