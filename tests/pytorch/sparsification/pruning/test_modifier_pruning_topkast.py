from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import Modifier
from sparseml.pytorch.sparsification.pruning import TopKASTPruningModifier

FIELDS = {
    "forward_sparsity": 0.75,
    "backward_sparsity": 0.5,
    "start_epoch": 1.0,
    "end_epoch": 4.0,
    "update_frequency": 0.5,
    "params": ["re:.*weight"],
}


def zeros(masks):
    return sum(int((mask == 0).sum()) for mask in masks.values())


class Steps:
    """One layer trained by hand, with the values before and after each step."""

    def __init__(self, **changes):
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 8, bias=False).double()
        self.optimizer = torch.optim.SGD(self.layer.parameters(), lr=0.1)
        self.modifier = TopKASTPruningModifier(**{**FIELDS, "start_epoch": 0.0, **changes})
        self.manager = ScheduledModifierManager([self.modifier])
        self.stepper = self.manager.modify(self.layer, self.optimizer, steps_per_epoch=4)

    def step(self, number):
        generator = torch.Generator().manual_seed(number)
        inputs = torch.randn(5, 8, generator=generator, dtype=torch.float64)
        self.optimizer.zero_grad()
        (self.layer(inputs) - 1).pow(2).mean().backward()
        grad = self.layer.weight.grad.clone()
        self.stepper.step()
        return grad

    @property
    def masks(self):
        state = self.modifier.state_dict()
        return [next(iter(state[part].values())) for part in ("param_masks", "grad_masks")]

    @property
    def all_values(self):
        return self.modifier.module_masks.params_unmasked[0]


def test_two_masks_of_two_sparsities(linear_net, train):
    modifier = TopKASTPruningModifier(**FIELDS)
    for epoch in train(linear_net, [modifier], 24):
        state = modifier.state_dict()
        in_force = epoch >= 1.0
        assert zeros(state["param_masks"]) == (144 if in_force else 0)  # of 192
        if epoch < 4.0:
            assert zeros(state["grad_masks"]) == (96 if in_force else 0)
        for name, mask in state["param_masks"].items():
            weight = linear_net.get_parameter(name.removesuffix(".sparsity_mask"))
            assert not weight[mask == 0].any()
            assert not ((mask == 1) & (state["grad_masks"][name] == 0)).any()
    assert modifier._grad_module_masks.enabled and modifier.module_masks.enabled
    assert not modifier.module_masks.allow_reintroduction


def test_a_step_by_hand():
    run = Steps(active_weight_decay=0.02, update_frequency=2.0)
    run.step(0)
    active, trained = run.masks
    before = run.all_values
    assert int(active.sum()) == 16 and int(trained.sum()) == 32
    assert torch.equal(run.layer.weight.detach(), before * active)
    raw = run.step(1)
    decay = 0.02 * 0.1 * before * (active + (trained - active) / 0.25)
    expected = before - decay - 0.1 * raw * trained
    assert torch.allclose(run.all_values, expected, atol=1e-15)
    assert torch.equal(run.layer.weight.detach(), run.all_values * active)
    untouched = trained == 0
    assert torch.equal(run.all_values[untouched], before[untouched])


def test_exploring_weights_become_active():
    run = Steps(active_weight_decay=0.0)
    run.step(0)
    first = run.masks[0]
    for number in range(1, 16):
        run.step(number)
        values = run.all_values.abs()
        if number % 2 == 0:  # right after an update, and one step of training
            active = run.masks[0]
            assert values[active == 1].min() > 0.5 * values[active == 0].max()
    regrown = (run.masks[0] == 1) & (first == 0)
    assert regrown.any()
    assert run.layer.weight[regrown].all()


def test_weights_that_do_not_train_have_no_momentum(linear_net, train):
    optimizer = torch.optim.Adam(linear_net.parameters(), lr=0.05)
    modifier = TopKASTPruningModifier(**FIELDS)
    for epoch in train(linear_net, [modifier], 15, optimizer):
        if epoch < 1.0:
            continue
        masks = modifier._grad_module_masks
        for param, mask in zip(masks.params, masks.param_masks, strict=True):
            state = optimizer.state[param]
            assert not state["exp_avg"][mask == 0].any()
            assert not state["exp_avg_sq"][mask == 0].any()
            exploring = (mask == 1) & (param == 0)
            assert state["exp_avg"][exploring].any()


def test_what_is_masked_away_is_dropped_at_the_end(linear_net, train):
    for leave_enabled in (True, False):
        modifier = TopKASTPruningModifier(**FIELDS, leave_enabled=leave_enabled)
        net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
        for epoch in train(net, [modifier], 20):
            count = sum(int((layer.weight == 0).sum()) for layer in (net[0], net[2]))
            if epoch > 4.0:
                assert (count >= 144) == leave_enabled
        assert modifier.module_masks.enabled == leave_enabled
        assert modifier._grad_module_masks.enabled == leave_enabled


def test_finalize_takes_whatever_it_is_given(linear_net):
    modifier = TopKASTPruningModifier(**FIELDS)
    modifier.apply(linear_net, foo=1)
    assert sum(int((layer.weight == 0).sum()) for layer in (linear_net[0], linear_net[2])) == 144
    assert not linear_net[0].weight._post_accumulate_grad_hooks
    assert modifier._grad_module_masks is None or not modifier._grad_module_masks.enabled


def test_state(linear_net, train):
    modifier = TopKASTPruningModifier(**FIELDS)
    assert modifier.state_dict() == {"param_masks": {}, "grad_masks": {}}
    list(train(linear_net, [modifier], 8))
    state = modifier.state_dict()
    assert list(state) == ["param_masks", "grad_masks"]
    for part in state.values():
        assert list(part) == ["0.weight.sparsity_mask", "2.weight.sparsity_mask"]
    other, net = TopKASTPruningModifier(**FIELDS), nn.Sequential(*map(type_of, linear_net))
    with pytest.raises(RuntimeError):
        other.load_state_dict(state)
    other.initialize(net)
    other.load_state_dict(state)
    for part, masks in other.state_dict().items():
        assert all(torch.equal(mask, state[part][name]) for name, mask in masks.items())
    assert not net[0].weight[state["param_masks"]["0.weight.sparsity_mask"] == 0].any()
    for wrong in ({"param_masks": state["param_masks"]}, {**state, "grad_masks": {}}, {}):
        with pytest.raises(IndexError):
            other.load_state_dict(wrong)
        other.load_state_dict(wrong, strict=False)


def type_of(layer):
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features)
    return type(layer)()


def test_fields():
    modifier = TopKASTPruningModifier(**FIELDS)
    assert modifier._forward_sparsity == 0.75 and modifier.active_weight_decay == 1e-4
    assert modifier.global_sparsity and modifier.leave_enabled
    assert modifier.mask_type == "unstructured" and modifier.allow_reintroduction
    assert str(Modifier.load_obj(str(modifier))) == str(modifier)
    for wrong in (
        {"forward_sparsity": 1.0},
        {"forward_sparsity": 0.0},
        {"backward_sparsity": -0.5},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TopKASTPruningModifier(**{**FIELDS, **wrong})
    with pytest.raises(TypeError, match="forward_sparsity"):
        TopKASTPruningModifier(**{**FIELDS, "forward_sparsity": 1})


def test_a_backward_sparsity_above_the_other_is_warned_of(linear_net, caplog):
    modifier = TopKASTPruningModifier(**{**FIELDS, "backward_sparsity": 0.9})
    with caplog.at_level(logging.WARNING):
        modifier.initialize(linear_net)
    assert "backward_sparsity 0.9 is above forward_sparsity 0.75" in caplog.text
