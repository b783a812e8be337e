"""Pruning a whole weight: once, in steps, with patterns, in parts."""

from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.second_order import elimination
from sparseml.pytorch.functional.second_order.blocks import block_layout
from sparseml.pytorch.functional.second_order.elimination import (
    eliminate,
    eliminate_cheapest,
    loss_limit,
)
from sparseml.pytorch.functional.second_order.fisher import BlockFisher
from sparseml.pytorch.functional.second_order.obs import obs_scores


def _weight(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _grads(shape, count=60, seed=1):
    generator = torch.Generator().manual_seed(seed)
    grads = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return grads + 0.7 * grads.roll(1, dims=-1)


def _inverse(layout, mask=None, seed=1, **options):
    fisher = BlockFisher(layout, dtype=torch.float64, **options)
    fisher.accumulate(_grads(layout.shape, seed=seed))
    return fisher.factor(1e-3, mask)


def _eliminate(inverse, weight):
    blocks = inverse.blocks_of(weight)
    return eliminate(blocks, inverse.inverse, inverse.live, floor=inverse.floor)


def _removed(inverse, weight, blocks):
    """The weight and the loss after removing what is True in ``blocks`` ``[R, B]``."""
    new, loss = inverse.update(weight, inverse.whole(blocks))
    return inverse.whole(new), loss


def test_gradual_pruning_matches_a_fresh_oracle_at_each_step(oracle):
    shape = (4, 12)
    weight, layout = _weight(shape), block_layout(shape, 12)
    mask = torch.ones(shape, dtype=torch.bool)
    for step, sparsity in enumerate((0.0, 0.5, 0.75, 0.9)):
        grads = _grads(shape, seed=step)
        inverse = _inverse(layout, mask, seed=step)
        wanted = round(48 * sparsity) - int((~mask).sum())
        (pruned,) = oracle.cheapest([_eliminate(inverse, weight)], wanted)
        new, loss = _removed(inverse, weight, pruned)
        expected, total = torch.zeros_like(weight), 0.0
        ranked = []
        for r in range(4):
            on = mask[r].nonzero()[:, 0]
            fisher = oracle.fisher(grads[:, r][:, on], 1e-3)
            order, losses = oracle.greedy(weight[r, on], fisher)
            ranked += [(cost, r, entry) for cost, entry in zip(losses, order, strict=True)]
        chosen = sorted(ranked)[:wanted]
        for r in range(4):
            on = mask[r].nonzero()[:, 0]
            fisher = oracle.fisher(grads[:, r][:, on], 1e-3)
            removed = [entry for _, row, entry in chosen if row == r]
            expected[r, on], cost = oracle.best_rest(weight[r, on], fisher, removed)
            total += cost
        torch.testing.assert_close(new, expected)
        assert loss == pytest.approx(total)
        weight, mask = new, new != 0
        assert int((weight == 0).sum()) == round(48 * sparsity)


def test_pruning_one_block_in_two_steps_ends_where_one_step_does(oracle):
    shape = (1, 16)
    weight, layout = _weight(shape), block_layout(shape, 16)
    found = _eliminate(inverse := _inverse(layout), weight)
    at_once, loss = _removed(inverse, weight, oracle.first(found, torch.tensor([9])))
    half, first = _removed(inverse, weight, oracle.first(found, torch.tensor([4])))
    again = _inverse(layout, half != 0)
    pruned = oracle.first(_eliminate(again, half), torch.tensor([5]))
    rest, second = _removed(again, half, pruned)
    torch.testing.assert_close(rest, at_once)
    assert first + second == pytest.approx(loss)


@pytest.mark.parametrize("shape", [(6, 16), (5, 8, 3, 3), (3, 4, 1, 1)])
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (1, 2)])
def test_n_of_m_is_exact_in_every_group_of_inputs(oracle, shape, keep, of):
    weight = _weight(shape)
    layout = block_layout(shape, 20, group=of, whole_groups=True)
    inverse = _inverse(layout)
    steps = weight.numel() * (of - keep) // of
    found = eliminate_cheapest([inverse], [weight], steps, nm=(keep, of))
    new, _ = _removed(inverse, weight, oracle.cheapest(found, steps)[0])
    groups = new.movedim(1, -1).reshape(-1, of)
    assert bool(((groups != 0).sum(1) == keep).all())


@pytest.mark.parametrize("shape", [(6, 16), (5, 8, 3, 3), (4, 6)])
def test_blocks_of_four_inputs_go_together(oracle, shape):
    weight = _weight(shape)
    layout = block_layout(shape, 8, group=4)
    inverse = _inverse(layout)
    groups = shape[0] * -(-shape[1] // 4) * weight[0, 0].numel()
    found = eliminate_cheapest([inverse], [weight], groups // 2, group=4)
    new, _ = _removed(inverse, weight, oracle.cheapest(found, groups // 2)[0])
    channels = new.movedim(1, -1).reshape(-1, shape[1])
    parts = torch.nn.functional.pad(channels, (0, -shape[1] % 4)).view(-1, 4)
    gone = (parts == 0).all(1)
    assert int(gone.sum()) == groups // 2
    whole = layout.places().view(-1, 4).all(1)
    assert bool((layout.to_blocks(new).view(-1, 4)[whole & ~_dead(layout, new)] != 0).all())


def _dead(layout, weight):
    return (layout.to_blocks(weight).view(-1, 4) == 0).all(1)


def test_looking_no_deeper_than_needed_chooses_the_same(oracle):
    shapes = [(40, 48), (300, 8), (7, 5)]
    weights = [_weight(shape, seed) * (seed + 1) for seed, shape in enumerate(shapes)]
    inverses = [_inverse(block_layout(shape, 8)) for shape in shapes]
    full = [_eliminate(i, w) for i, w in zip(inverses, weights, strict=True)]
    total = sum(w.numel() for w in weights)
    for steps in (0, 1, total // 3, total // 2, total - 40, total):
        expected = oracle.cheapest(full, steps)
        chosen = oracle.cheapest(eliminate_cheapest(inverses, weights, steps), steps)
        assert all(torch.equal(a, b) for a, b in zip(chosen, expected, strict=True))
        assert sum(int(mask.sum()) for mask in chosen) == steps
    assert loss_limit(inverses, weights, total // 2) < loss_limit(inverses, weights, total - 100)


def test_a_limit_that_was_too_low_is_raised(oracle, monkeypatch):
    weight, inverse = _weight((8, 8)), _inverse(block_layout((8, 8), 8))
    expected = oracle.cheapest(eliminate_cheapest([inverse], [weight], 40), 40)[0]
    for wrong in (0.0, 1e-6):
        monkeypatch.setattr(elimination, "loss_limit", lambda *_, wrong=wrong, **__: wrong)
        found = oracle.cheapest(eliminate_cheapest([inverse], [weight], 40), 40)[0]
        assert torch.equal(found, expected)


def test_a_weight_held_in_parts_is_pruned_as_the_whole(oracle):
    shape = (6, 8)
    weight, layout = _weight(shape), block_layout(shape, 8)
    whole = _inverse(layout)
    found = eliminate_cheapest([whole], [weight], 20)
    expected, loss = _removed(whole, weight, oracle.cheapest(found, 20)[0])
    parts = [_inverse(layout, blocks=slice(0, 2)), _inverse(layout, blocks=slice(2, 6))]
    new, total = 0, 0.0
    chosen = oracle.cheapest(eliminate_cheapest(parts, [weight, weight], 20), 20)
    for part, pruned in zip(parts, chosen, strict=True):
        rest, cost = _removed(part, weight, pruned)
        new, total = new + rest, total + cost
    torch.testing.assert_close(new, expected)
    assert total == pytest.approx(loss)
    assert torch.equal(parts[0].diag()[:2], whole.diag()[:2])


def test_gone_weights_stay_gone_by_both_rules():
    shape = (4, 8)
    weight, layout = _weight(shape), block_layout(shape, 8)
    mask = torch.arange(32).reshape(shape) % 4 != 0
    inverse = _inverse(layout, mask)
    assert bool((obs_scores(inverse.blocks_of(weight), inverse.inverse)[inverse.live] > 0).all())
    pruned = torch.arange(32).reshape(shape) % 4 == 1
    joint, _ = inverse.update(weight, pruned)
    summed, unknown = inverse.update(weight, pruned, rule="simultaneous")
    assert unknown != unknown
    for new in (joint, summed):
        assert torch.equal(inverse.whole(new) == 0, pruned | ~mask)
    assert not torch.allclose(joint, summed)
    with pytest.raises(ValueError, match="'joint' or 'simultaneous'"):
        inverse.update(weight, pruned, rule="both")


def test_a_weight_that_is_zero_but_not_gone_goes_first_and_for_nothing():
    weight = _weight((1, 8))
    weight[0, 5] = 0.0
    found = _eliminate(_inverse(block_layout((1, 8), 8)), weight)
    assert int(found.order[0, 0]) == 5
    assert float(found.losses[0, 0]) == 0.0
    assert int((found.order[0] >= 0).sum()) == 8
