"""Two modifiers that decide about one parameter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import (
    ConstantPruningModifier,
    GMPruningModifier,
    PatternLockModifier,
    SnipMomentumPruningModifier,
)

RANGE = {"init_sparsity": 0.0, "final_sparsity": 0.5, "update_frequency": 1.0}


def pruner(cls, params, start, end, **more):
    return cls(params=params, start_epoch=start, end_epoch=end, **{**RANGE, **more})


def modify(*modifiers):
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    manager = ScheduledModifierManager(list(modifiers))
    manager.modify(net, torch.optim.SGD(net.parameters(), lr=0.1), steps_per_epoch=4)
    return manager


@pytest.mark.parametrize("other", [SnipMomentumPruningModifier, GMPruningModifier])
def test_running_saliency_wants_its_parameters_for_itself(other):
    first = pruner(SnipMomentumPruningModifier, ["re:.*weight"], 0.0, 4.0)
    with pytest.raises(ValueError) as refused:
        modify(first, pruner(other, ["1.weight"], 2.0, 6.0))
    names = {"SnipMomentumPruningModifier", other.__name__}
    text = str(refused.value)
    assert all(name in text for name in names)
    assert "both prune 1.weight from epoch 2 to epoch 4" in text and "exclude" in text


@pytest.mark.parametrize("when", [(4.0, 6.0), (0.0, 4.0)])
def test_at_other_times_or_elsewhere_nothing_is_said(when, caplog):
    params = ["0.weight"] if when[0] == 0.0 else ["re:.*weight"]
    first = pruner(SnipMomentumPruningModifier, ["1.weight"], 0.0, 4.0)
    modify(first, pruner(SnipMomentumPruningModifier, params, *when, mask_type="4x1"))
    assert "both prune" not in caplog.text


def test_schedules_in_steps():
    steps = {"start_epoch": 0.0, "end_epoch": 2.0}
    fields = {"params": ["0.weight"], **RANGE}
    late = SnipMomentumPruningModifier(**fields, start_step=8, end_step=12)
    modify(SnipMomentumPruningModifier(**fields, **steps), late)
    early = SnipMomentumPruningModifier(**fields, start_step=7, end_step=12)
    with pytest.raises(ValueError, match=r"from epoch 1.75 to epoch 2"):
        modify(SnipMomentumPruningModifier(**fields, **steps), early)
    with pytest.raises(ValueError, match=r"both prune 0.weight from epoch 3 to epoch 3"):
        at_once = {"start_step": 12, "end_step": 12}
        modify(*(SnipMomentumPruningModifier(**fields, **at_once) for _ in range(2)))


def test_modifiers_of_1x_are_warned_of(caplog):
    modify(*(pruner(GMPruningModifier, ["0.weight"], 0.0, end) for end in (2.0, -1.0)))
    assert "GMPruningModifier both prune 0.weight from epoch 0 to epoch 2" in caplog.text


@pytest.mark.parametrize("lock", [ConstantPruningModifier, PatternLockModifier])
def test_keeping_zeros_goes_with_any_other(lock, caplog):
    modify(lock(["re:.*weight"]), pruner(SnipMomentumPruningModifier, ["re:.*weight"], 0.0, 4.0))
    assert "both prune" not in caplog.text
