r"""The second moment of a layer's inputs, which all rows of its weight share.

.. math:: F = \frac{2}{n} \sum_{t=1}^{n} x_t \, x_t^T

over the n input vectors (tokens, or patches of images) that the layer multiplies its rows by. A
change :math:`\delta` of a row then changes the row's outputs by
:math:`\tfrac12 \delta^T F \delta` in the mean square. This is the matrix of SparseGPT (Frantar &
Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", 2023). The
groups of a convolution have a matrix each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparseml.pytorch.functional.second_order.blocks import BlockLayout, block_layout
from sparseml.pytorch.functional.second_order.linalg import exact_arithmetic

_CHUNK_VALUES = 1 << 23


class InputMoments:
    """Accumulates the second moments of what the rows of one weight are multiplied by.

    They are additive: ranks may sum up ``products`` and ``count``.

    :param shape: of the weight, ``[out, in / groups, *kernel]``
    :param groups: of the layer
    :param run: inputs that a pattern prunes together; these lie next to each other
    :param dtype: float32 or float64
    :param device: where the matrices live; inputs are moved there
    :raises ValueError: for a weight without an input dimension
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        groups: int = 1,
        run: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(shape) < 2:
            raise ValueError(f"inputs need a weight [out, in, *kernel], found {tuple(shape)}")
        whole = torch.Size(shape[1:]).numel()
        self.layout = block_layout(shape, whole, "row", group=run)
        self._row: BlockLayout = block_layout((1, *shape[1:]), whole, "row", group=run)
        size = self.layout.block_size
        self.products = torch.zeros(groups, size, size, dtype=dtype, device=device)
        self.count = 0

    def accumulate(self, inputs: Tensor) -> None:
        """Add input vectors, or patches, each of them one term of the sum.

        :param inputs: ``[n, in, *kernel]``, any dtype and device
        :raises ValueError: for another shape
        """
        groups, size, _ = self.products.shape
        rows = inputs.detach().unflatten(1, (groups, -1)).to(self.products)
        blocks = self._row.to_blocks(rows.unsqueeze(2)).view(len(rows), groups, size)
        with exact_arithmetic(self.products.device):
            by_group = blocks.transpose(0, 1)
            self.products.baddbmm_(by_group.mT, by_group)
        self.count += len(rows)

    def matrices(self) -> Tensor:
        """F of each group, ``[groups, B, B]``.

        :raises ValueError: before any input
        """
        if self.count == 0:
            raise ValueError("no input has been accumulated")
        return self.products * (2.0 / self.count)


def conv_patches(
    inputs: Tensor,
    kernel_size: Sequence[int],
    *,
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    padding_mode: str = "zeros",
) -> list[Tensor]:
    """Cut the inputs of a convolution into the patches that its weight is multiplied by.

    :param inputs: ``[n, in, *size]`` of one to three dimensions
    :param padding: on both sides of each dimension, the last one first, as ``pad`` takes it
    :param padding_mode: of the layer
    :return: parts, ``[m, in, *kernel]`` each, none much larger than 32 MB
    """
    mode = "constant" if padding_mode == "zeros" else padding_mode
    patches = pad(inputs, list(padding), mode=mode)
    dims = len(kernel_size)
    for dim, (width, step, apart) in enumerate(zip(kernel_size, stride, dilation, strict=True), 2):
        windows = patches.unfold(dim, (width - 1) * apart + 1, step)
        patches = windows[..., ::apart]
    # [n, in, *positions, *kernel], still a view
    ordered = patches.movedim(1, 1 + dims)
    each = ordered[0].numel() if len(ordered) else 1
    parts = ordered.split(max(1, _CHUNK_VALUES // max(1, each)))
    return [part.flatten(0, dims) for part in parts]
