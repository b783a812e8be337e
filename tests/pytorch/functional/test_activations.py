"""Penalties that make activations sparse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.activations import PENALTIES, activation_penalty

X = torch.tensor([[1.0, -2.0], [0.0, 3.0]])


@pytest.mark.parametrize("kind,expected", [("l1", 3.0), ("l2", 7.0), ("relu", 2.0), ("hs", 9 / 7)])
def test_values(kind, expected):
    assert activation_penalty([X], kind) == pytest.approx(expected)
    assert activation_penalty([X, torch.zeros(1, 2)], kind) == pytest.approx(expected / 2)
    assert activation_penalty([], kind) == 0.0


@pytest.mark.parametrize("kind", PENALTIES)
def test_gradients_are_finite_and_make_it_smaller(kind):
    for x in (X.clone(), torch.zeros(2, 2)):
        x.requires_grad_()
        before = activation_penalty([x], kind)
        before.backward()
        assert x.grad.isfinite().all()
        assert activation_penalty([x - 0.01 * x.grad], kind) <= before


@given(st.integers(0, 50), st.floats(0.1, 100.0))
@settings(deadline=None, max_examples=20)
def test_hoyer_counts_whatever_the_scale(seed, scale):
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.isclose(activation_penalty([x], "hs"), activation_penalty([x * scale], "hs"))
    ones = (x > 0).double()
    assert torch.isclose(activation_penalty([ones], "hs"), ones.sum() / 4)


def test_half_precision_does_not_overflow():
    x = torch.full((1, 1000), 300.0, dtype=torch.float16)
    assert activation_penalty([x], "l2").item() == pytest.approx(9e7)


def test_other_kinds():
    with pytest.raises(ValueError, match="kind must be one of"):
        activation_penalty([X], "l3")
