from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.second_order import batched
from sparseml.pytorch.functional.second_order.obs import (
    joint_update,
    kernels_for,
    obs_scores,
    simultaneous_update,
)

BACKENDS = ["torch", "numba"] if importlib.util.find_spec("numba") else ["torch"]


def test_golden_vector_of_the_simultaneous_update():
    fisher = torch.tensor(
        [[[2, 0.5, 0, 0], [0.5, 1, 0.2, 0], [0, 0.2, 1.5, 0.3], [0, 0, 0.3, 0.8]]]
    )
    weights = torch.tensor([[1, -0.5, 2, 0.25]])
    pruned = torch.tensor([[False, True, False, True]])
    new = simultaneous_update(weights, torch.linalg.inv(fisher), pruned)
    torch.testing.assert_close(new, torch.tensor([[0.877947, 0, 1.979500, 0]]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("group", [1, 4])
def test_score_is_the_loss_of_removing_one_alone(oracle, group):
    weights, _, fishers = oracle.problem(2, 12)
    scores = obs_scores(weights, torch.linalg.inv(fishers), group)
    for r in range(2):
        for first in range(0, 12, group):
            removed = list(range(first, first + group))
            _, cost = oracle.best_rest(weights[r], fishers[r], removed)
            assert scores[r, removed].tolist() == pytest.approx([cost] * group, rel=1e-6)


@pytest.mark.parametrize("group", [1, 4])
def test_simultaneous_update_is_the_sum_of_single_updates(oracle, group):
    weights, _, fishers = oracle.problem(1, 12)
    inverse = torch.linalg.inv(fishers)
    pruned = torch.zeros(1, 12, dtype=torch.bool)
    pruned[0, :4] = pruned[0, 8:] = True
    change = torch.zeros(12, dtype=torch.float64)
    for first in pruned[0].nonzero()[::group, 0].tolist():
        removed = list(range(first, first + group))
        change += oracle.best_rest(weights[0], fishers[0], removed)[0] - weights[0]
    expected = torch.where(pruned[0], 0.0, weights[0] + change)
    new = simultaneous_update(weights, inverse, pruned, group)
    torch.testing.assert_close(new[0], expected, rtol=1e-6, atol=1e-6)
    if group == 4 or pruned.sum() == group:
        return
    assert not torch.allclose(new, joint_update(weights, inverse, pruned)[0], rtol=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(0, 10**6), st.floats(0, 1), st.sampled_from(BACKENDS))
def test_joint_update_is_the_best_one(oracle, size, seed, share, backend):
    weights, _, fishers = oracle.problem(2, size, seed=seed)
    inverse = torch.linalg.inv(fishers)
    pruned = torch.rand(2, size, generator=torch.Generator().manual_seed(seed)) < share
    new, losses = joint_update(weights, inverse, pruned, backend=backend)
    assert not new[pruned].any()
    summed = simultaneous_update(weights, inverse, pruned)
    for r in range(2):
        expected, cost = oracle.best_rest(
            weights[r], fishers[r], pruned[r].nonzero()[:, 0].tolist()
        )
        torch.testing.assert_close(new[r], expected)
        assert float(losses[r]) == pytest.approx(cost, rel=1e-9, abs=1e-12)
        masked = torch.where(pruned[r], 0.0, weights[r])
        for other in (masked, summed[r]):
            assert cost <= oracle.loss(weights[r], other, fishers[r]) + 1e-12


def test_nothing_and_everything(oracle, backend):
    weights, _, fishers = oracle.problem(2, 9)
    inverse = torch.linalg.inv(fishers)
    nothing = torch.zeros(2, 9, dtype=torch.bool)
    same, free = joint_update(weights, inverse, nothing, backend=backend)
    assert torch.equal(same, weights) and free.tolist() == [0.0, 0.0]
    new, losses = joint_update(weights, inverse, ~nothing, backend=backend)
    assert not new.any()
    for r in range(2):
        assert float(losses[r]) == pytest.approx(float(weights[r] @ fishers[r] @ weights[r] / 2))


def test_numba_where_it_is_installed():
    numba_cpu = pytest.importorskip("sparseml.pytorch.functional.second_order.numba_cpu")
    assert kernels_for(torch.device("cpu")) is numba_cpu
    assert kernels_for(torch.device("cpu"), "numba") is numba_cpu


def test_torch_elsewhere(monkeypatch):
    assert kernels_for(torch.device("cpu"), "torch") is batched
    assert kernels_for(torch.device("cuda")) is batched
    monkeypatch.setitem(sys.modules, "numba", None)
    assert kernels_for(torch.device("cpu")) is batched


def test_wrong_choices():
    with pytest.raises(ValueError, match="backend is one of"):
        kernels_for(torch.device("cpu"), "triton")
    with pytest.raises(ValueError, match="CPU only"):
        kernels_for(torch.device("cuda"), "numba")
