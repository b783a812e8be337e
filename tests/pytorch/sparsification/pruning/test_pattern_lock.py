"""Keeping the units of a pattern that are pruned already."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import PatternLockModifier
from sparseml.pytorch.units import Member as UnitMember
from sparseml.pytorch.units import UnitGroup, identity


def trained(layer, modifier, steps=6):
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    stepper = ScheduledModifierManager([modifier]).modify(layer, optimizer, steps_per_epoch=2)
    inputs = 5 if isinstance(layer, nn.Conv2d) else None
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        stepper.zero_grad()
        shape = (4, 8) if inputs is None else (4, 8, inputs, inputs)
        layer(torch.randn(shape, generator=generator)).pow(2).mean().backward()
        stepper.step()
        found.append(layer.weight.detach().clone())
    return found


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D, nn.Conv2d])
def test_groups_of_two_in_four_stay_as_they_are(kind):
    torch.manual_seed(0)
    made = {nn.Linear: (8, 4), Conv1D: (4, 8), nn.Conv2d: (8, 4, 3)}
    layer = kind(*made[kind])
    weight = layer.weight.data.T if kind is Conv1D else layer.weight.data
    groups = weight.unflatten(1, (2, 4))
    groups[:, 0, :2] = 0.0  # in the pattern
    groups[0, 0, 2] = 0.0  # more than in the pattern
    groups[:, 1, 3] = 0.0  # dense, but for a zero
    before = layer.weight.detach() != 0
    for found in trained(layer, PatternLockModifier(["weight"], mask_type="2:4")):
        now = found.T if kind is Conv1D else found
        was = before.T if kind is Conv1D else before
        there = (now != 0).unflatten(1, (2, 4))
        assert torch.equal(there[:, 0], was.unflatten(1, (2, 4))[:, 0])
        assert there[:, 1].all()


@pytest.mark.parametrize(
    ("mask_type", "pruned"),
    [
        ("unstructured", {"column", "block", "single"}),
        ("4x1", {"column", "block"}),
        ("channelx1", {"column"}),
        ("channel", {"column"}),
        ([1, 2], set()),
    ],
)
def test_only_whole_units_are_kept(mask_type, pruned, caplog):
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    parts = {
        "column": (slice(None), slice(0, 1)),
        "block": (slice(4, 8), slice(3, 4)),
        "single": (slice(2, 3), slice(5, 6)),
    }
    with torch.no_grad():
        for part in parts.values():
            layer.weight[part] = 0.0
    found = trained(layer, PatternLockModifier(["weight"], mask_type=mask_type))[-1]
    assert {name for name, part in parts.items() if not found[part].any()} == pruned
    assert int((found == 0).sum()) == int(sum((found[parts[name]] == 0).sum() for name in pruned))
    assert ("keeps nothing: no unit of mask_type [1, 2]" in caplog.text) == (not pruned)


def test_what_is_zero_at_the_start_counts_and_stays_after_the_end():
    torch.manual_seed(0)
    layer = nn.Linear(8, 4, bias=False)
    layer.weight.data[:, 0] = 0.0
    late = PatternLockModifier(["weight"], start_epoch=1.0, end_epoch=2.0, mask_type="4x1")
    assert all(found.all() for found in trained(layer, late))  # trained away before
    for leave, zeros in ((True, 4), (False, 0)):
        layer.weight.data[:, 0] = 0.0
        lock = PatternLockModifier(["weight"], end_epoch=1.0, leave_enabled=leave)
        found = [int((one == 0).sum()) for one in trained(layer, lock)]
        assert found == [4, 4, 4, *[zeros] * 3]


def test_in_one_shot_it_changes_nothing():
    layer = nn.Linear(8, 4)
    layer.weight.data[:, ::2] = 0.0
    before = layer.weight.detach().clone()
    PatternLockModifier(["weight"], mask_type="2:4").apply(layer)
    assert torch.equal(layer.weight, before)


def test_patterns_that_cannot_be_kept_are_refused():
    layer = nn.Linear(6, 4)
    with pytest.raises(ValueError, match=r"mask_type '2:4' cannot mask weight: .*multiple of 4"):
        PatternLockModifier(["weight"], mask_type="2:4").initialize(layer)
    units = UnitGroup("neurons", 4, [UnitMember("weight", 0, identity(4))])
    with pytest.raises(ValueError, match=r"PatternLockModifier must cut each parameter by itself"):
        PatternLockModifier(["weight"], mask_type=[units]).initialize(layer)
