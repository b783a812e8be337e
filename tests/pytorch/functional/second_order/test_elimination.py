from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.second_order.elimination import eliminate
from sparseml.pytorch.functional.second_order.obs import joint_update


def _all(weights):
    return torch.ones_like(weights, dtype=torch.bool)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_vector(oracle, backend, dtype):
    fisher = [[2, 0.5, 0, 0], [0.5, 1, 0.2, 0], [0, 0.2, 1.5, 0.3], [0, 0, 0.3, 0.8]]
    inverse = torch.linalg.inv(torch.tensor([fisher], dtype=torch.float64)).to(dtype)
    weights = torch.tensor([[1, -0.5, 2, 0.25]], dtype=dtype)
    found = eliminate(weights, inverse, _all(weights), backend=backend)
    assert found.order.tolist() == [[3, 1, 0, 2]]
    by_weight = torch.tensor([[0.899792, 0.134167, 3.85, 0.023066]], dtype=dtype)
    torch.testing.assert_close(found.scores(), by_weight, rtol=0, atol=2e-6)
    traces = {
        1: [1.002947, -0.511788, 2.051572, 0],
        2: [0.875, 0, 1.983333, 0],
        3: [0, 0, 1.983333, 0],
    }
    for count, trace in traces.items():
        pruned = oracle.first(found, torch.tensor([count]))
        new, loss = joint_update(weights, inverse, pruned, backend=backend)
        torch.testing.assert_close(new, torch.tensor([trace], dtype=dtype), rtol=0, atol=2e-6)
        torch.testing.assert_close(loss, found.losses[:, count - 1])


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force_at_every_depth(oracle, backend, group, seed):
    weights, _, fishers = oracle.problem(3, 12, seed=seed)
    inverse = torch.linalg.inv(fishers)
    found = eliminate(weights, inverse, _all(weights), group=group, backend=backend)
    for r in range(3):
        order, losses = oracle.greedy(weights[r], fishers[r], group=group)
        assert found.order[r].tolist() == order
        assert found.losses[r].tolist() == pytest.approx(losses, rel=1e-9)
        for depth in range(12 // group + 1):
            counts = torch.zeros(3, dtype=torch.int64)
            counts[r] = depth
            pruned = oracle.first(found, counts)
            new, loss = joint_update(weights, inverse, pruned, backend=backend)
            removed = [g * group + a for g in order[:depth] for a in range(group)]
            expected, cost = oracle.best_rest(weights[r], fishers[r], removed)
            torch.testing.assert_close(new[r], expected)
            assert float(loss[r]) == pytest.approx(cost, rel=1e-9, abs=1e-12)


def test_global_choice_equals_brute_force_at_every_sparsity(oracle, backend):
    tensors = [oracle.problem(rows, 8, seed=rows) for rows in (2, 3)]
    found, ranked = [], []
    for t, (weights, _, fishers) in enumerate(tensors):
        found.append(eliminate(weights, torch.linalg.inv(fishers), _all(weights), backend=backend))
        for r in range(len(weights)):
            order, losses = oracle.greedy(weights[r], fishers[r])
            ranked += [(loss, t, r, entry) for entry, loss in zip(order, losses, strict=True)]
    ranked.sort()
    for steps in range(41):
        chosen = {
            (t, r, entry)
            for t, pruned in enumerate(oracle.cheapest(found, steps))
            for r, entry in pruned.nonzero().tolist()
        }
        assert chosen == {(t, r, entry) for _, t, r, entry in ranked[:steps]}


@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (3, 4), (1, 2)])
def test_n_of_m_equals_brute_force(oracle, backend, keep, of):
    weights, _, fishers = oracle.problem(2, 12, seed=keep)
    inverse = torch.linalg.inv(fishers)
    found = eliminate(weights, inverse, _all(weights), nm=(keep, of), backend=backend)
    for r in range(2):
        order, losses = oracle.greedy(weights[r], fishers[r], nm=(keep, of))
        assert found.order[r].tolist() == order
        assert found.losses[r].tolist() == pytest.approx(losses, rel=1e-9)
    kept = ~oracle.first(found, (found.order >= 0).sum(1))
    assert bool((kept.view(2, -1, of).sum(-1) == keep).all())


def test_weights_that_are_gone_count_towards_n_of_m(oracle, backend):
    weights = torch.rand(1, 8) + 0.1
    live = torch.tensor([[1, 0, 1, 1, 0, 0, 0, 1]], dtype=torch.bool)
    found = eliminate(weights, torch.eye(8)[None], live, nm=(2, 4), backend=backend)
    assert (found.order >= 0).sum(1).tolist() == [1]
    kept = live & ~oracle.first(found, torch.tensor([1]))
    assert kept.view(-1, 4).sum(1).tolist() == [2, 1]


def test_gone_weights_are_never_looked_at(oracle, backend):
    weights, _, fishers = oracle.problem(4, 10)
    generator = torch.Generator().manual_seed(1)
    live = torch.rand(4, 10, generator=generator) > torch.tensor([[0.0], [0.3], [0.7], [1.1]])
    isolated = fishers * live.unsqueeze(1) * live.unsqueeze(2) + torch.diag_embed((~live).double())
    found = eliminate(weights, torch.linalg.inv(isolated), live, backend=backend)
    assert (found.order >= 0).sum(1).tolist() == live.sum(1).tolist()
    for r in range(4):
        on = live[r].nonzero()[:, 0]
        order, losses = oracle.greedy(weights[r][on], fishers[r][on][:, on])
        steps = len(order)
        assert found.order[r, :steps].tolist() == on[order].tolist()
        assert found.order[r, steps:].tolist() == [-1] * (found.order.shape[1] - steps)
        assert found.losses[r, :steps].tolist() == pytest.approx(losses, rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 5),
    groups=st.integers(1, 12),
    group=st.integers(1, 3),
    depth=st.integers(0, 14),
    seed=st.integers(0, 10**6),
    dense=st.floats(0, 1),
)
def test_backends_agree(oracle, rows, groups, group, depth, seed, dense):
    pytest.importorskip("numba")
    generator = torch.Generator().manual_seed(seed)
    size = groups * group
    grads = torch.randn(rows, 2 * size, size, generator=generator, dtype=torch.float64)
    inverse = torch.linalg.inv(grads.mT @ grads / size + 0.1 * torch.eye(size, dtype=torch.float64))
    weights = torch.randn(rows, size, generator=generator, dtype=torch.float64)
    live = torch.rand(rows, size, generator=generator) < dense
    both = [
        eliminate(weights, inverse, live, depth=depth, group=group, backend=backend)
        for backend in ("torch", "numba")
    ]
    assert torch.equal(both[0].order, both[1].order)
    torch.testing.assert_close(both[0].losses, both[1].losses)
    pruned = oracle.first(both[0], (both[0].order >= 0).sum(1))
    updates = [
        joint_update(weights, inverse, pruned, backend=backend) for backend in ("torch", "numba")
    ]
    torch.testing.assert_close(updates[0], updates[1])


@pytest.mark.parametrize("size", [33, 70, 130])
def test_large_blocks_in_single_precision(oracle, backend, size):
    """Long enough for panels to be applied and slots to be squeezed out several times."""
    weights, _, fishers = oracle.problem(2, size, seed=size)
    inverse = torch.linalg.inv(fishers)
    exact = eliminate(weights, inverse, _all(weights), backend="torch")
    found = eliminate(weights.float(), inverse.float(), _all(weights), backend=backend)
    assert sorted(found.order[0].tolist()) == list(range(size))
    torch.testing.assert_close(found.losses.double(), exact.losses, rtol=1e-4, atol=1e-6)
    pruned = oracle.first(exact, torch.full((2,), size // 2))
    new, _ = joint_update(weights.float(), inverse.float(), pruned, backend=backend)
    for r in range(2):
        expected, _ = oracle.best_rest(weights[r], fishers[r], pruned[r].nonzero()[:, 0].tolist())
        torch.testing.assert_close(new[r].double(), expected, rtol=1e-3, atol=1e-4)


def test_ties_go_by_index_and_losses_never_fall(backend):
    weights = torch.ones(2, 50)
    weights[1, ::2] = 0.0
    found = eliminate(weights, torch.eye(50).expand(2, -1, -1), _all(weights), backend=backend)
    assert found.order[0].tolist() == list(range(50))
    assert found.order[1].tolist() == [*range(0, 50, 2), *range(1, 50, 2)]
    assert found.losses[1, :25].tolist() == [0.0] * 25
    assert bool((found.losses.diff(dim=1) >= 0).all())


def test_permuting_weights_permutes_the_order(oracle, backend):
    weights, _, fishers = oracle.problem(1, 40, seed=3)
    inverse = torch.linalg.inv(fishers)
    shuffle = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    found = eliminate(weights, inverse, _all(weights), backend=backend)
    moved = eliminate(
        weights[:, shuffle], inverse[:, shuffle][:, :, shuffle], _all(weights), backend=backend
    )
    assert shuffle[moved.order[0].long()].tolist() == found.order[0].tolist()
    torch.testing.assert_close(moved.losses, found.losses)


def test_an_unreliable_inverse_is_held_up_by_the_floor(backend):
    """Two copies of one direction: rounding leaves nothing, or less, of the second's variance."""
    factor = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0))
    inverse = factor @ factor.mT * 1e6  # of rank 3, so that later pivots are zero or negative
    weights, floor = torch.ones(1, 6), torch.full((1, 6), 0.5)
    found = eliminate(weights, inverse, _all(weights), floor=floor, backend=backend)
    assert sorted(found.order[0].tolist()) == list(range(6))
    assert bool(found.losses.isfinite().all())
    assert bool((found.losses.diff(dim=1) >= 0).all())


def test_stopping_early_gives_the_same_beginning(oracle, backend):
    weights, _, fishers = oracle.problem(3, 40)
    inverse = torch.linalg.inv(fishers)
    full = eliminate(weights, inverse, _all(weights), backend=backend)
    short = eliminate(weights, inverse, _all(weights), depth=13, backend=backend)
    assert torch.equal(short.order, full.order[:, :13])
    torch.testing.assert_close(short.losses, full.losses[:, :13])
    limit = float(full.losses[1, 20])
    limited = eliminate(weights, inverse, _all(weights), limit=limit, backend=backend)
    within = (full.losses <= limit).sum(1)
    assert (limited.order >= 0).sum(1).tolist() == (within + 1).tolist()
    first = torch.arange(40) <= within.unsqueeze(1)
    assert torch.equal(limited.order[first], full.order[first])


def test_wrong_arguments():
    weights, inverse = torch.ones(2, 6), torch.eye(6).expand(2, -1, -1)
    live = _all(weights)
    with pytest.raises(ValueError, match="groups of 4 do not divide blocks of 6"):
        eliminate(weights, inverse, live, group=4)
    for nm in [(0, 2), (2, 2), (2, 4)]:
        with pytest.raises(ValueError, match="N:M"):
            eliminate(weights, inverse, live, nm=nm)
    with pytest.raises(ValueError, match="N:M"):
        eliminate(weights, inverse, live, nm=(1, 2), group=2)
    with pytest.raises(ValueError, match="not finite"):
        eliminate(weights * float("nan"), inverse, live)
    with pytest.raises(ValueError, match="must agree"):
        eliminate(weights.double(), inverse, live)
    with pytest.raises(ValueError, match=r"\[R, B, B\]"):
        eliminate(weights, inverse[:, :5], live)
    with pytest.raises(ValueError, match="backend"):
        eliminate(weights, inverse, live, backend="cuda")
