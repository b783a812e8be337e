from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.block_layout import block_layout
from sparseml.pytorch.sparsification.pruning.sampling.shards import (
    Piece,
    exchange,
    join_pieces,
    rows_of,
    share_out,
    whole,
)

SHAPES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(1, 9), st.integers(1, 7))
def test_every_block_is_in_one_share_and_shares_are_equal(shapes, size, shares):
    layouts = [block_layout(shape, size) for shape in shapes]
    pieces = [whole(index, layout) for index, layout in enumerate(layouts)]
    found = share_out(pieces, layouts, shares)
    assert len(found) == shares
    blocks = [
        (p.index, r) for part in found for p in part for r in range(p.rows.start, p.rows.stop)
    ]
    assert blocks == [(i, r) for i, one in enumerate(layouts) for r in range(one.num_blocks)]
    costs = [sum(p.count * layouts[p.index].block_size ** 2 for p in part) for part in found]
    largest = max(layout.block_size**2 for layout in layouts)
    assert max(costs) <= sum(costs) / shares + 2 * largest


class Given:
    def __init__(self, *grads):
        self.count, self._grads = len(grads[0]), grads

    def of(self, index):
        return self._grads[index]


def test_pieces_are_joined_as_they_were_cut():
    shapes = [(4, 5), (7,), (3, 2, 2, 2)]
    tensors = [torch.randn(shape) for shape in shapes]
    layouts = [block_layout(shape, 6, group=2) for shape in shapes]
    pieces = [whole(index, layout) for index, layout in enumerate(layouts)]
    cut = [p for part in share_out(pieces, layouts, 4) for p in part]
    found = [(piece, rows_of(piece, layouts, tensors[piece.index])) for piece in cut]
    joined = join_pieces(found, [0, 1, 2], layouts, tensors)
    assert all(torch.equal(a, b) for a, b in zip(joined, tensors, strict=True))


@pytest.mark.parametrize("count", [1, 3])
def test_alone_nothing_travels(count):
    layouts = [block_layout((2, 4), 4), block_layout((5,), 3)]
    grads = [torch.randn(count, 2, 4), torch.randn(count, 5)]
    own = [Piece(0, slice(1, 2)), Piece(1, slice(0, 2))]
    (found,) = exchange([Given(*grads)], [own], layouts)
    assert found[0] == count
    assert torch.equal(found[1][0], grads[0][:, 1:])
    assert torch.equal(found[1][1].flatten(1)[:, :5], grads[1])
