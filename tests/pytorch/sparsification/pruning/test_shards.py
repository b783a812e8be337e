from __future__ import annotations

from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.second_order.blocks import block_layout
from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import (
    FisherPasses,
    FisherSettings,
)
from sparseml.pytorch.sparsification.pruning.sampling.shards import Piece, share_out


def _whole(layouts):
    return [Piece(index, slice(0, one.num_blocks)) for index, one in enumerate(layouts)]


SHAPES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(1, 9), st.integers(1, 7))
def test_every_block_is_in_one_share_and_shares_are_equal(shapes, size, shares):
    layouts = [block_layout(shape, size) for shape in shapes]
    pieces = _whole(layouts)
    found = share_out(pieces, layouts, shares)
    assert len(found) == shares
    blocks = [
        (p.index, r) for part in found for p in part for r in range(p.rows.start, p.rows.stop)
    ]
    assert blocks == [(i, r) for i, one in enumerate(layouts) for r in range(one.num_blocks)]
    costs = [
        sum((p.rows.stop - p.rows.start) * layouts[p.index].block_size ** 2 for p in part)
        for part in found
    ]
    largest = max(layout.block_size**2 for layout in layouts)
    assert max(costs) <= sum(costs) / shares + 2 * largest


def test_pieces_are_joined_as_they_were_cut():
    shapes = [(4, 5), (7,), (3, 2, 2, 2)]
    tensors = [torch.randn(shape) for shape in shapes]
    layouts = [block_layout(shape, 6, group=2) for shape in shapes]
    cut = [p for part in share_out(_whole(layouts), layouts, 4) for p in part]
    found = [(p, layouts[p.index].to_blocks(tensors[p.index])[p.rows]) for p in cut]
    passes = FisherPasses(SimpleNamespace(weights=tensors), layouts, FisherSettings(1, 1.0), "")
    joined = passes.joined([0, 1, 2], found)
    assert all(torch.equal(a, b) for a, b in zip(joined, tensors, strict=True))
