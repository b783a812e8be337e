r"""What a layer's inputs tell of the Fisher blocks of its weight, where gradients are few.

The Fisher matrix of a row is about that of the layer's inputs, times how large the gradients of its
outputs are (the factors of K-FAC, Martens & Grosse, 2015, with a diagonal one for the outputs). N
gradients give a matrix of rank N at most; the inputs of as many batches are far more vectors. So
the mean of the two,

.. math:: \frac{1}{1 + \rho} \bigl( F_r + \rho \, s_r \, E[x x^T] \bigr), \qquad
          s_r = \operatorname{tr} F_r / \operatorname{tr} E[x x^T] ,

has the size of the first, and errs less than either.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.blocks import BlockLayout
from sparseml.pytorch.functional.second_order.fisher import BlockFisher
from sparseml.pytorch.functional.second_order.input_moments import InputMoments
from sparseml.pytorch.functional.second_order.linalg import map_rows

_CHUNK_BYTES = {True: 1 << 23, False: 1 << 28}  # on the CPU or not


def blend_inputs(fisher: BlockFisher, moments: InputMoments, share: float) -> None:
    """Take the weighted mean of a Fisher matrix and what inputs tell of it, in place.

    Entries of different rows are independent as far as inputs tell.

    :param fisher: accumulated, not factored yet
    :param moments: of the same weight, of single inputs (``run`` 1)
    :param share: :math:`\\rho`, at least 0: how much the inputs count, against 1 for the gradients
    """
    fisher.flush()
    blocks, layout = fisher.blocks, fisher.layout
    device = blocks.device
    row, column = (one.to(device)[fisher.part] for one in _places(layout))
    matrices = moments.matrices().to(blocks)
    per_group = layout.shape[0] // len(matrices)

    def work(start: int, stop: int) -> None:
        own, place = row[start:stop], column[start:stop]
        same = (own.unsqueeze(1) == own.unsqueeze(2)) & (own > 0).unsqueeze(1)
        group = ((own - 1).clamp_min(0) // per_group).unsqueeze(2)
        told = matrices[group, place.unsqueeze(2), place.unsqueeze(1)] * same
        part = blocks[start:stop]
        sizes = torch.stack([one.diagonal(dim1=1, dim2=2) for one in (part, told)], dim=2)
        sizes = torch.bmm(same.to(sizes), sizes)
        tiny = torch.finfo(sizes.dtype).tiny
        told *= (share * sizes[..., 0] / sizes[..., 1].clamp_min(tiny)).unsqueeze(2)
        part += told
        part /= 1.0 + share

    size = layout.block_size
    row_bytes = 4 * size * size * blocks.element_size()
    map_rows(work, len(blocks), row_bytes, _CHUNK_BYTES[blocks.is_cpu], device)


def _places(layout: BlockLayout) -> tuple[Tensor, Tensor]:
    """The row, counted from 1, and the column of each place of the blocks; 0 for none."""
    rows, size = layout.shape[0], torch.Size(layout.shape[1:]).numel()
    row = torch.arange(1, rows + 1).unsqueeze(1).expand(rows, size)
    column = torch.arange(size).expand(rows, size)
    return (
        layout.to_blocks(row.reshape(layout.shape)),
        layout.to_blocks(column.reshape(layout.shape)),
    )
