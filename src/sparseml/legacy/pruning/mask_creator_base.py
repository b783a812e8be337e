"""Mask creators in the form of SparseML 1.x: the base class, single weights and N:M.

They say what is pruned; :func:`~sparseml.pytorch.functional.select.select` decides what goes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sparseml.pytorch.functional.budgets import Global, Uniform
from sparseml.pytorch.functional.budgets import Target as Target
from sparseml.pytorch.functional.patterns import NM, Pattern, Unstructured
from sparseml.pytorch.functional.select import select

_TOLERANCE = 1e-2


class PruningMaskCreator(ABC):
    """Makes masks (1 = keep, 0 = prune) that prune what has the lowest scores."""

    fixed_sparsity: float | None = None
    """The one sparsity that finished masks of this kind have, None when they can have any."""

    @abstractmethod
    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Return a mask for each tensor of scores, of its shape and dtype.

        :param tensors: scores, any shapes, higher = more important
        :param target: fraction to prune, one float for all or a list with one for each
        :param global_sparsity: rank the entries of all tensors together
        """

    def create_parameter_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Return masks in the layout of the parameters that are scored; pruning calls this."""
        return self.create_sparsity_masks(tensors, target, global_sparsity)


class UnstructuredPruningMaskCreator(PruningMaskCreator):
    """Prunes single entries, exactly ``round(numel * sparsity)`` of them.

    Among entries equal to the threshold the first are kept. When the threshold is the lowest score
    of all (typically that of weights that are zero already), the pruned ones are drawn from the
    entries with that score in an order shuffled with a fixed seed, as SparseML 1.x does.
    """

    _pattern: Pattern = Unstructured()

    def __str__(self) -> str:
        return "unstructured"

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Return masks as the base class; a sparsity of at most 0 or above 1 prunes nothing.

        :raises TypeError: for a target that is neither a float nor a list
        :raises ValueError: for targets that do not fit the tensors or differ globally, and NaNs
        """
        targets = one_target_each(target, len(tensors))
        asked = [sparsity if 0.0 < sparsity <= 1.0 else 0.0 for sparsity in targets]
        pattern, budget = self._pattern_for(len(tensors)), _budget(global_sparsity)
        return in_dtypes_of(tensors, select(tensors, pattern, budget, asked, spread_ties=True))

    def _pattern_for(self, count: int) -> Pattern:
        """Return what is pruned as a whole in ``count`` tensors."""
        return self._pattern


class NMPruningMaskCreator(PruningMaskCreator):
    """Keeps N of every M consecutive inputs (0 < N < M); the sparsity can only be ``1 - N/M``."""

    def __init__(self, N: int = 2, M: int = 4) -> None:
        self._pattern = NM(N, M)
        self.fixed_sparsity: float = self._pattern.full_sparsity

    def __str__(self) -> str:
        return str(self._pattern)

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Return masks that keep the N largest *absolute values* of every group.

        As in SparseML 1.x a matrix is cut along its last dimension, and the mask of a convolution's
        weight ``[O, I, H, W]`` comes in the layout ``[O, H, W, I]``, in which the groups are
        neighbours. :meth:`create_parameter_masks` gives masks in the layout of the weights.

        :param target: 0.0 for all tensors gives ones, else ``1 - N/M`` (to within 0.01)
        :raises ValueError: for another target, a size that is no multiple of M, and NaN scores
        :raises NotImplementedError: for tensors of other than two or four dimensions
        """
        targets = one_target_each(target, len(tensors))
        if all(isinstance(sparsity, float) and sparsity == 0.0 for sparsity in targets):
            return [torch.ones_like(tensor) for tensor in tensors]
        full = self.fixed_sparsity
        for sparsity in targets:
            if abs(sparsity - full) > _TOLERANCE:
                raise ValueError(f"a {self} mask has a sparsity of {full:g}, found {sparsity}")
        groups = [self._flat_groups(tensor) for tensor in tensors]
        masks = in_dtypes_of(tensors, select(groups, self._pattern, Uniform(), full))
        pairs = zip(masks, tensors, strict=True)
        return [mask.reshape(tensor.movedim(1, -1).shape) for mask, tensor in pairs]

    def create_parameter_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Return masks in the layout of the parameters, by the scores as they are.

        Groups run along the second dimension, for convolutions at each kernel position. A target
        between 0 and ``1 - N/M``, and not beyond, puts that share of the groups into the pattern,
        those that lose least; the others stay dense. So a gradual schedule may lead up to it.
        """
        asked = [max(sparsity, 0.0) for sparsity in one_target_each(target, len(tensors))]
        masks = select(tensors, self._pattern, _budget(global_sparsity), asked)
        return in_dtypes_of(tensors, masks)

    def _flat_groups(self, tensor: Tensor) -> Tensor:
        """Return absolute values, one group per row."""
        size, shape = self._pattern.group, tuple(tensor.shape)
        if tensor.numel() % size:
            raise ValueError(f"a tensor of shape {shape} cannot be cut into groups of {size}")
        if len(shape) not in (2, 4):
            found = f"two or four dimensions, found {len(shape)}"
            raise NotImplementedError(f"{self} masks are made for {found}")
        return tensor.detach().movedim(1, -1).reshape(-1, size).abs()


class ConstantMaskCreator(PruningMaskCreator):
    """Keeps what is not zero, whatever the target."""

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target | None = None, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Return 1 where a value is not zero, 0 where it is."""
        return in_dtypes_of(tensors, [tensor.detach().ne(0) for tensor in tensors])


def one_target_each(target: Target, count: int) -> list[float]:
    """Return a target for each of ``count`` tensors."""
    if isinstance(target, float):
        return [target] * count
    if not isinstance(target, (list, tuple)):
        found = f"{type(target).__name__} {target!r}"
        raise TypeError(f"target must be a float or a list of floats, found {found}")
    if len(target) != count:
        raise ValueError(f"{count} tensors, but {len(target)} target sparsities")
    return list(target)


def in_dtypes_of(tensors: Sequence[Tensor], masks: Iterable[Tensor]) -> list[Tensor]:
    """Return masks as 1 and 0, each in the dtype of its tensor."""
    return [mask.to(tensor.dtype) for mask, tensor in zip(masks, tensors, strict=True)]


def _budget(global_sparsity: bool) -> Global | Uniform:
    return Global() if global_sparsity else Uniform()
