"""Pruners that prune by groups of units, which can then be removed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparseml.pytorch.sparsification.pruning import (
    GMPruningModifier,
    GWProdPruningModifier,
    MFACPruningModifier,
)
from sparseml.pytorch.units import Member, UnitGroup, identity, remove

FIELDS = {
    "params": ["re:.*"],
    "init_sparsity": 0.5,
    "final_sparsity": 0.5,
    "start_epoch": 0.0,
    "end_epoch": 1.0,
    "update_frequency": 1.0,
}


def hidden(name, first, second, size):
    members = [
        Member(f"{first}.weight", 0, identity(size)),
        Member(f"{first}.bias", 0, identity(size)),
        Member(f"{second}.weight", 1, identity(size)),
    ]
    return UnitGroup(name, size, members)


@pytest.mark.parametrize("global_sparsity", [True, False])
@pytest.mark.parametrize(
    ("cls", "more"),
    [
        (GMPruningModifier, {}),
        (GWProdPruningModifier, {"num_grads": 4}),
        (MFACPruningModifier, {"num_grads": 4, "fisher_block_size": 8}),
    ],
)
def test_units_go_as_a_whole_and_can_be_removed(cls, more, global_sparsity):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)
    ).double()
    groups = [hidden("first", "0", "2", 32), hidden("second", "3", "5", 16)]
    params = ["0.weight", "0.bias", "2.weight", "3.weight", "3.bias", "5.weight"]
    fields = {**FIELDS, "params": params, "mask_type": groups, **more}
    modifier = cls(**fields, global_sparsity=global_sparsity)
    data = [([torch.randn(4, 8).double()], {}, torch.randn(4, 8).double()) for _ in range(4)]
    sampler = {"data_loader_builder": lambda: data, "loss_fn": nn.functional.mse_loss}
    outcome = modifier.outcome(net, grad_sampler={**sampler, "progress_bar": False})
    keeps = [outcome["0.bias"].mask, outcome["3.bias"].mask]
    for (first, second), keep in zip([("0", "2"), ("3", "5")], keeps, strict=True):
        rows, columns = outcome[f"{first}.weight"].mask, outcome[f"{second}.weight"].mask
        assert torch.equal(rows, keep.unsqueeze(1).expand_as(rows))
        assert torch.equal(columns, keep.expand_as(columns))
    gone = [int((~keep).sum()) for keep in keeps]
    if global_sparsity:
        assert sum(gone) == 24
    else:
        assert gone == [16, 8]
    outcome.write(net)
    whole, inputs = copy.deepcopy(net), torch.randn(5, 8).double()
    remove(net, dict(zip(groups, keeps, strict=True)))
    assert net[0].out_features == 32 - gone[0] and net[5].in_features == 16 - gone[1]
    torch.testing.assert_close(net(inputs), whole(inputs))
