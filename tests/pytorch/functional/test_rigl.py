from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparseml.pytorch.functional.rigl import connections_to_keep, drop_and_grow_scores
from sparseml.pytorch.functional.selection import lowest_mask


def test_connections_to_keep():
    assert connections_to_keep(100, 80, 0.3) == 14
    assert connections_to_keep(100, 80, 0.0) == 20
    assert connections_to_keep(100, 80, 1.0) == 0
    assert connections_to_keep(100, 100, 0.3) == 0


def test_small_weights_make_room_for_large_gradients():
    weight = torch.tensor([[0.0, 5.0, -1.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    gradient = torch.tensor([[-9.0, 0.0, 1.0], [2.0, 0.0, 8.0]], dtype=torch.float64)
    scores = drop_and_grow_scores(weight, gradient, kept=2)
    top = torch.finfo(torch.float64).max
    assert scores.tolist() == [[9, top, 1], [2, top, 8]]
    assert lowest_mask(scores, 2).tolist() == [[True, True, False], [False, True, True]]


@given(st.integers(0, 12), st.integers(0, 12), st.floats(0, 1), st.integers(0, 99))
def test_brute_force(size, pruned, replaced, seed):
    pruned = min(size, pruned)
    generator = torch.Generator().manual_seed(seed)
    weight, gradient = torch.randn(2, size, generator=generator, dtype=torch.float64)
    kept = connections_to_keep(size, pruned, replaced)
    mask = lowest_mask(drop_and_grow_scores(weight, gradient, kept), pruned)
    by_size = sorted(range(size), key=lambda i: -abs(float(weight[i])))[:kept]
    rest = sorted(set(range(size)) - set(by_size), key=lambda i: -abs(float(gradient[i])))
    expected = {*by_size, *rest[: size - pruned - kept]}
    assert set(mask.nonzero()[:, 0].tolist()) == expected


def test_half_precision_is_widened():
    scores = drop_and_grow_scores(torch.ones(3).half(), torch.ones(3).half(), 1)
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx([torch.finfo(torch.float32).max, 1, 1])
