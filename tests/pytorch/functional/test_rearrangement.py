"""Exchanging units so that what is pruned cancels out."""

from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.selection import rearranged


def plain(kept, gradients, fixed):
    """The greedy pass as it is written down, without a shortcut."""
    columns = [gradients[:, unit] for unit in range(gradients.shape[1])]
    own = [float(column.square().sum()) for column in columns]
    pruned = [unit for unit in range(len(own)) if not kept[unit]]
    if all(fixed[unit] for unit in pruned):
        return kept
    for candidate in sorted((u for u in range(len(own)) if kept[u]), key=lambda u: own[u]):
        pruned.append(candidate)
        without = {
            unit: float(sum(columns[other] for other in pruned if other != unit).square().sum())
            for unit in pruned
            if not fixed[unit]
        }
        pruned.remove(min(without, key=without.get))
    result = torch.ones_like(kept)
    result[pruned] = False
    return result


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_greedy_pass(seed):
    torch.manual_seed(seed)
    gradients = torch.randn(6, 14, dtype=torch.float64)
    order = gradients.square().sum(0).argsort()
    kept = torch.ones(14, dtype=torch.bool)
    kept[order[: 2 + seed % 5]] = False
    fixed = torch.zeros_like(kept)
    fixed[order[: seed % 3]] = True
    found = rearranged(kept, gradients, fixed)
    assert torch.equal(found, plain(kept, gradients, fixed))
    assert int(found.sum()) == int(kept.sum()) and not found[fixed].any()

    def cost(keep):
        return float(gradients[:, ~keep].sum(1).square().sum())

    assert cost(found) <= cost(kept)


def test_what_cancels_out_goes_together():
    # units 0 and 1 pull the same way; 2 takes back what 0 does
    gradients = torch.tensor([[1.0, 1.0, -1.1, 5.0]])
    kept = torch.tensor([False, False, True, True])
    assert rearranged(kept, gradients).tolist()[2:] == [False, True]


def test_where_nothing_can_be_exchanged():
    gradients = torch.ones(2, 3)
    for kept in ([True] * 3, [False] * 3):
        assert rearranged(torch.tensor(kept), gradients).tolist() == kept
    kept = torch.tensor([False, True, True])
    assert rearranged(kept, gradients, ~kept).tolist() == kept.tolist()
