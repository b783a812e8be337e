from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.sparsification import Modifier
from sparseml.pytorch.sparsification.pruning import ConstantPruningModifier


def test_fields():
    modifier = ConstantPruningModifier(params=["re:.*weight"], update_frequency=2.0)
    assert (modifier.start_epoch, modifier.end_epoch, modifier.update_frequency) == (-1, -1, -1)
    assert str(modifier) == (
        "!ConstantPruningModifier\n    end_epoch: -1.0\n    params: ['re:.*weight']\n"
        "    start_epoch: -1.0\n    update_frequency: -1"
    )
    again = Modifier.load_obj(str(modifier))
    assert str(again) == str(modifier)
    assert again.leave_enabled is False
    assert again.global_sparsity is False
    with pytest.raises(ValueError, match="end_epoch"):
        ConstantPruningModifier("__ALL__", start_epoch=2, end_epoch=1)


def test_zeros_found_at_the_start_stay(linear_net, sparsities, train):
    linear_net[0].weight.data[:, ::2] = 0.0
    linear_net[2].bias.data[0] = 0.0
    modifier = ConstantPruningModifier("__ALL__", start_epoch=1.0, end_epoch=2.0)
    found = [dict(sparsities(linear_net)) for _ in train(linear_net, [modifier], steps=12)]
    assert found[0]["0.weight"] < 0.1  # free before the start
    # what was zero at the start of epoch 1 is what counts
    assert [each["0.weight"] for each in found[4:8]] == [found[4]["0.weight"]] * 4


def test_the_mask_is_that_of_the_start_even_if_weights_hit_zero_later(linear_net):
    linear_net[0].weight.data[:, ::2] = 0.0
    modifier = ConstantPruningModifier(["0.weight"])
    modifier.initialize(linear_net)
    optimizer = torch.optim.SGD(linear_net.parameters(), lr=0.1)
    for epoch in (0.0, 0.25):
        assert modifier.update_ready(epoch, 4)
        modifier.scheduled_update(linear_net, optimizer, epoch, 4)
        linear_net[0].weight.data[0, 1] = 0.0
    assert modifier.module_masks.param_masks[0].mean() == 0.5
    linear_net[0].weight.data.fill_(1.0)
    modifier.optimizer_post_step(linear_net, optimizer, 0.25, 4)
    assert linear_net[0].weight.mean() == 0.5


def test_weights_are_free_after_the_end(linear_net, sparsities, train):
    linear_net[0].weight.data[:, ::2] = 0.0
    modifier = ConstantPruningModifier(["0.weight"], start_epoch=0.0, end_epoch=1.0)
    found = [sparsities(linear_net)["0.weight"] for _ in train(linear_net, [modifier], steps=7)]
    assert found[:4] == [0.5] * 4
    assert found[-1] < 0.1


def test_one_shot_changes_nothing(linear_net):
    before = {name: value.clone() for name, value in linear_net.state_dict().items()}
    ConstantPruningModifier("__ALL__").apply(linear_net)
    for name, value in linear_net.state_dict().items():
        assert torch.equal(value, before[name])


def test_modifiers_for_a_sparse_model(linear_net):
    linear_net[2].weight.data[:, ::2] = 0.0
    linear_net[0].weight.data[0, :8] = 0.0  # a sixteenth only
    modifiers = ConstantPruningModifier.from_sparse_model(linear_net)
    assert [modifier.params for modifier in modifiers] == [["2.weight"]]
    assert [m.params for m in ConstantPruningModifier.from_sparse_model(linear_net[2])] == [
        ["weight"]
    ]
