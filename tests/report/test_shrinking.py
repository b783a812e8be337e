"""The smaller copy of a pruned model that a run measures."""

from __future__ import annotations

import torch
from torch import nn

from sparseml.report.shrinking import shrunk_copy


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


def test_zeros_in_rows_make_a_smaller_copy() -> None:
    model, inputs = _model(), torch.randn(3, 6)
    with torch.no_grad():
        model[2].weight[:, :6] = 0
    found = shrunk_copy(model, inputs)
    assert found is not None
    smaller, done = found
    assert (done.parameters_before, done.parameters_after) == (74, 20)
    assert model[0].weight.shape == (8, 6)  # as it was
    torch.testing.assert_close(smaller(inputs), model(inputs))


def test_scattered_zeros_make_none() -> None:
    model = _model()
    with torch.no_grad():
        model[0].weight[::2, ::2] = 0
        model[2].weight[0, :3] = 0
    assert shrunk_copy(model, torch.randn(3, 6)) is None


def test_zeros_that_cannot_go_make_none() -> None:
    model = _model()
    with torch.no_grad():
        model[0].weight[:, 3] = 0  # an input that nobody reads comes all the same
    assert shrunk_copy(model, torch.randn(3, 6)) is None
