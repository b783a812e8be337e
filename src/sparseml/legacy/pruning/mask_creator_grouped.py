"""Masks of blocks: groups of entries that are kept or pruned as a whole."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from sparseml.legacy.pruning.mask_creator_base import UnstructuredPruningMaskCreator
from sparseml.pytorch.functional.patterns import PerTensor, reduce_dims

__all__ = [
    "BlockMaskCreator",
    "FourBlockMaskCreator",
    "GroupedPruningMaskCreator",
    "PatternMaskCreator",
]

_GROUPING_FNS = ("l2", "mean", "max", "min")


class GroupedPruningMaskCreator(UnstructuredPruningMaskCreator):
    """Prunes groups of entries by one score each; subclasses say what a group is."""

    @abstractmethod
    def group_tensor(self, tensor: Tensor) -> Tensor:
        """One score per group."""

    @abstractmethod
    def _map_mask_to_tensor(
        self, grouped_mask: Tensor, original_tensor_shape: torch.Size, tensor_idx: int | None = None
    ) -> Tensor:
        """A mask per group (shape of :meth:`group_tensor`'s result) spread over the tensor."""

    @staticmethod
    def reduce_tensor(
        tensor: Tensor, dim: int | Sequence[int], reduce_fn_name: str, keepdim: bool = True
    ) -> Tensor:
        """Sum up scores over dimensions.

        :param reduce_fn_name: ``l2`` or ``mean``, or over a single dimension ``max`` or ``min``
        :raises ValueError: for another name, or several dimensions with ``max`` or ``min``
        """
        if reduce_fn_name not in _GROUPING_FNS:
            raise ValueError(
                f"grouping_fn_name must be one of {list(_GROUPING_FNS)}, found {reduce_fn_name!r}"
            )
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
        if reduce_fn_name in ("max", "min") and len(dims) > 1:
            raise ValueError(f"{reduce_fn_name!r} takes a single dimension, found {dims}")
        reduced = reduce_dims(tensor, dims, reduce_fn_name)
        for position in sorted(d % tensor.ndim for d in dims) if keepdim else ():
            reduced = reduced.unsqueeze(position)
        return reduced

    def _units(self, tensors: list[Tensor]) -> list[Tensor]:
        return [self.group_tensor(tensor.detach()) for tensor in tensors]

    def _masks(self, keep: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
        return [
            self._map_mask_to_tensor(unit, tensor.shape, index).to(tensor.dtype)
            for index, (unit, tensor) in enumerate(zip(keep, tensors, strict=True))
        ]


class FourBlockMaskCreator(GroupedPruningMaskCreator):
    """Prunes runs of four inputs, at each kernel position of a convolution.

    Where the number of inputs is no multiple of four, the last run of each row is shorter and its
    score is that of its own entries. Vectors are cut into runs of four too.

    :param grouping_fn_name: ``mean``, ``l2``, ``max`` or ``min`` of a run's scores, signs included
    """

    def __init__(self, grouping_fn_name: str = "mean") -> None:
        self._grouping_fn_name = grouping_fn_name

    def __str__(self) -> str:
        return "block4"

    def group_tensor(self, tensor: Tensor) -> Tensor:
        """Shape ``[runs, 1]``; the runs of a row are neighbours."""
        rows = tensor.movedim(1, -1) if tensor.ndim > 2 else tensor
        rows = rows.reshape(-1, rows.shape[-1])
        left_over = rows.shape[1] % 4
        if left_over:
            # the mean of a run padded with its own mean is that mean
            padding = rows[:, -left_over:].mean(dim=1, keepdim=True)
            rows = torch.cat([rows, padding.expand(-1, 4 - left_over)], dim=1)
        return self.reduce_tensor(rows.reshape(-1, 4), 1, self._grouping_fn_name)

    def _map_mask_to_tensor(
        self, grouped_mask: Tensor, original_tensor_shape: torch.Size, tensor_idx: int | None = None
    ) -> Tensor:
        if len(original_tensor_shape) <= 2:
            rows_shape = original_tensor_shape
        else:
            first, second, *kernel = original_tensor_shape
            rows_shape = torch.Size((first, *kernel, second))
        length = rows_shape[-1]
        rows = grouped_mask.expand(-1, 4).reshape(-1, -(-length // 4) * 4)[:, :length]
        mask = rows.reshape(rows_shape)
        return mask.movedim(-1, 1).contiguous() if mask.ndim > 2 else mask.contiguous()


class BlockMaskCreator(GroupedPruningMaskCreator):
    """Prunes ``out * in`` neighbouring entries, as SparseML 1.x cuts ``[out, in]`` blocks.

    The blocks are taken from the row-major order of the first two dimensions, at each kernel
    position, so only ``[1, k]`` (k dividing the inputs) gives rectangles: ``[2, 2]`` prunes the
    same runs of four as ``[1, 4]``. For true rectangles use a ``mask_type`` such as ``"2x2"``
    (:class:`~sparseml.pytorch.functional.patterns.Block`).

    :param block_shape: outputs and inputs of a block, -1 for the whole dimension; further entries
        must be 1
    :param grouping_fn_name: ``mean``, ``l2``, ``max`` or ``min`` of a block's scores
    :raises ValueError: for fewer than two entries, or later entries other than 1
    """

    def __init__(self, block_shape: Sequence[int], grouping_fn_name: str = "mean") -> None:
        if len(block_shape) < 2:
            raise ValueError(f"block_shape is [out, in], found {list(block_shape)}")
        if any(size != 1 for size in block_shape[2:]):
            raise ValueError(
                f"block_shape must be 1 beyond the first two entries, found {list(block_shape)}"
            )
        self._block_shape = list(block_shape)
        self._grouping_fn_name = grouping_fn_name

    def __str__(self) -> str:
        return str(self._block_shape)

    def group_tensor(self, tensor: Tensor) -> Tensor:
        """Shape ``[blocks, 1, kernel positions]``.

        :raises ValueError: for a vector, or a block that does not divide the shape
        """
        blocks, size, positions = self._cut(tensor.shape)
        return self.reduce_tensor(
            tensor.reshape(blocks, size, positions), 1, self._grouping_fn_name
        )

    def _map_mask_to_tensor(
        self, grouped_mask: Tensor, original_tensor_shape: torch.Size, tensor_idx: int | None = None
    ) -> Tensor:
        _, size, _ = self._cut(original_tensor_shape)
        return grouped_mask.expand(-1, size, -1).reshape(original_tensor_shape)

    def _cut(self, shape: torch.Size) -> tuple[int, int, int]:
        if len(shape) < 2:
            raise ValueError(f"blocks need at least two dimensions, found shape {tuple(shape)}")
        block = [
            size if wanted == -1 else wanted
            for wanted, size in zip(self._block_shape, shape, strict=False)
        ]
        if any(wanted < 1 or size % wanted for wanted, size in zip(block, shape, strict=False)):
            raise ValueError(
                f"blocks of {self._block_shape} do not divide a tensor of shape {tuple(shape)}"
            )
        size = block[0] * block[1]
        return shape[0] * shape[1] // size, size, torch.Size(shape[2:]).numel()


class PatternMaskCreator(GroupedPruningMaskCreator):
    """Prunes the units of any pattern of :mod:`sparseml.pytorch.functional.patterns`."""

    def __init__(self, pattern: PerTensor) -> None:
        self._pattern = pattern

    def __str__(self) -> str:
        return str(self._pattern)

    def group_tensor(self, tensor: Tensor) -> Tensor:
        """One score per unit of the pattern."""
        return self._pattern.unit_scores(tensor)

    def _map_mask_to_tensor(
        self, grouped_mask: Tensor, original_tensor_shape: torch.Size, tensor_idx: int | None = None
    ) -> Tensor:
        like = grouped_mask.new_zeros(()).expand(original_tensor_shape)
        return self._pattern.expand(grouped_mask, like)
