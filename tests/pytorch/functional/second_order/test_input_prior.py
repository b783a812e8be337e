"""Fisher blocks and what inputs tell of them."""

from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.second_order.blocks import block_layout
from sparseml.pytorch.functional.second_order.fisher import BlockFisher
from sparseml.pytorch.functional.second_order.input_moments import InputMoments
from sparseml.pytorch.functional.second_order.input_prior import blend_inputs


def accumulated(shape, groups, layout):
    generator = torch.Generator().manual_seed(0)
    grads = torch.randn(5, *shape, generator=generator).double()
    inputs = torch.randn(40, shape[1] * groups, *shape[2:], generator=generator).double()
    fisher, moments = (
        BlockFisher(layout, dtype=torch.float64),
        InputMoments(shape, groups=groups, dtype=torch.float64),
    )
    fisher.accumulate(grads)
    moments.accumulate(inputs)
    return grads, inputs, fisher, moments


@pytest.mark.parametrize(("shape", "groups"), [((6, 5), 1), ((4, 3, 2, 2), 1), ((4, 3, 2), 2)])
@pytest.mark.parametrize(("kind", "group"), [("padded", 1), ("row", 1), ("padded", 2)])
def test_blocks_are_the_mean_of_both_entry_by_entry(shape, groups, kind, group):
    layout = block_layout(shape, 8, kind, group=group)
    grads, inputs, fisher, moments = accumulated(shape, groups, layout)
    before = fisher.blocks.clone() if fisher.flush() is None else None
    blend_inputs(fisher, moments, 3.0)
    places = torch.arange(grads[0].numel()).view(shape) + 1
    width = grads[0][0].numel()
    by_group = inputs.unflatten(1, (groups, -1)).flatten(2)
    for block, was, own in zip(fisher.blocks, before, layout.to_blocks(places), strict=True):
        expected = was.clone()
        told = torch.zeros_like(was)
        for i, a in enumerate(own.tolist()):
            for j, b in enumerate(own.tolist()):
                (row, one), (other, two) = divmod(a - 1, width), divmod(b - 1, width)
                if a and b and row == other:
                    vectors = by_group[:, row * groups // shape[0]]
                    told[i, j] = vectors[:, one] @ vectors[:, two]
        rows = torch.where(own > 0, (own - 1) // width, -1)
        for row in rows.unique().tolist():
            if row >= 0:
                of = rows == row
                scale = was.diagonal()[of].sum() / told.diagonal()[of].sum()
                part = of.unsqueeze(1) & of
                expected[part] += 3.0 * scale * told[part]
        torch.testing.assert_close(block, expected / 4.0)


def test_few_gradients_and_many_inputs_come_nearer_the_truth_than_gradients():
    """With outputs' gradients independent of inputs, the truth is the product of the two."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(12, 12, generator=generator).double()
    inputs = torch.randn(600, 12, generator=generator).double() @ mix
    scale = torch.tensor([0.3, 1.0, 2.0]).double()
    outputs = torch.randn(600, 3, generator=generator).double() * scale
    fisher = BlockFisher(block_layout((3, 12), 12, "row"), dtype=torch.float64)
    fisher.accumulate(torch.einsum("no,ni->noi", outputs[:24], inputs[:24]))
    moments = InputMoments((3, 12), dtype=torch.float64)
    moments.accumulate(inputs)
    truth = scale.square().view(3, 1, 1) * (mix.T @ mix)

    def error():
        return float((fisher.blocks / 24 - truth).norm() / truth.norm())

    fisher.flush()
    alone = error()
    blend_inputs(fisher, moments, 3.0)
    assert error() < 0.75 * alone
