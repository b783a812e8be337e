"""What holds for all modifiers that prune by sampled gradients."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import Modifier
from sparseml.pytorch.sparsification.pruning import (
    CAPruningModifier,
    FastCAPruningModifier,
    GWProdPruningModifier,
    MFACPruningModifier,
    OBSPruningModifier,
)

FIELDS = {
    "params": ["re:.*weight"],
    "init_sparsity": 0.2,
    "final_sparsity": 0.75,
    "start_epoch": 0.5,
    "end_epoch": 2.5,
    "update_frequency": 0.5,
    "num_grads": 8,
}
MAKERS = {
    "obs": lambda **k: OBSPruningModifier(**{**FIELDS, "fisher_block_size": 8, "damp": 1e-3, **k}),
    "cap": lambda **k: CAPruningModifier(**{**FIELDS, "fisher_block_size": 8, "damp": 1e-3, **k}),
    "fast": lambda **k: FastCAPruningModifier(
        **{**FIELDS, "fisher_block_size": 6, "damp": 1e-2, **k}
    ),
    "mfac": lambda **k: MFACPruningModifier(**{**FIELDS, "fisher_block_size": 16, **k}),
    "gw": lambda **k: GWProdPruningModifier(**{**FIELDS, **k}),
}
ALL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def sampler(batches=9, **options):
    generator = torch.Generator().manual_seed(5)
    data = [
        ([torch.randn(4, 8, generator=generator)], {}, torch.randn(4, 4, generator=generator))
        for _ in range(batches)
    ]
    given = {"data_loader_builder": lambda: iter(data), "loss_function": nn.functional.mse_loss}
    return {**given, "progress_bar": False, **options}


def count_zeros(net):
    return {name: int((p == 0).sum()) for name, p in net.named_parameters() if p.ndim > 1}


@ALL
def test_one_shot_is_exact(make, linear_net):
    linear_net.train()
    make().apply(linear_net, grad_sampler=sampler())
    found = count_zeros(linear_net)
    assert sum(found.values()) == round(192 * 0.75)
    assert linear_net.training
    assert all(bool(param.isfinite().all()) for param in linear_net.parameters())


@ALL
def test_every_update_of_a_training_is_exact(make, linear_net, train):
    manager_steps, seen = 14, []
    modifier = make(global_sparsity=False)
    optimizer = torch.optim.SGD(linear_net.parameters(), lr=0.05, momentum=0.9)
    manager = ScheduledModifierManager([modifier])
    stepper = manager.modify(linear_net, optimizer, steps_per_epoch=4, grad_sampler=sampler())
    gone = None
    for _ in range(manager_steps):
        optimizer.zero_grad()
        (linear_net(torch.randn(6, 8)) - 1.0).pow(2).mean().backward()
        stepper.step()
        if modifier.applied_sparsity:
            target = modifier.applied_sparsity[0]
            seen.append(target)
            counts = [round(128 * target), round(64 * target)]
            assert list(count_zeros(linear_net).values()) == counts
            now = linear_net[0].weight.detach() == 0
            assert gone is None or bool(now[gone].all())
            gone = now
    assert seen[0] == 0.2 and seen[-1] == 0.75 and len(set(seen)) == 5
    manager.finalize(linear_net)
    assert list(count_zeros(linear_net).values()) == [96, 48]


@ALL
def test_sweep_equals_one_shot_each(make, linear_net):
    before = copy.deepcopy(linear_net.state_dict())
    sparsities = [0.3, 0.8, 0.5]
    modifier = make()
    found = list(modifier.sweep(linear_net, sparsities, grad_sampler=sampler()))
    assert [sparsity for sparsity, _ in found] == sparsities
    assert not modifier.initialized
    for key, value in linear_net.state_dict().items():
        assert torch.equal(value, before[key])
    for sparsity, outcome in found:
        alone = copy.deepcopy(linear_net)
        again = make(init_sparsity=sparsity, final_sparsity=sparsity)
        again.apply(alone, grad_sampler=sampler())
        assert set(outcome) == {"0.weight", "2.weight"}
        for name, (mask, weight) in outcome.items():
            torch.testing.assert_close(weight, alone.get_parameter(name).data)
            assert torch.equal(weight != 0, mask)


@pytest.mark.parametrize("name", ["obs", "cap"])
def test_sweep_with_recomputations(name, linear_net):
    before = copy.deepcopy(linear_net.state_dict())
    modifier = MAKERS[name](num_recomputations=2)
    for sparsity, outcome in modifier.sweep(linear_net, [0.4, 0.6], grad_sampler=sampler()):
        zeros = sum(int((~mask).sum()) for mask, _ in outcome.values())
        assert zeros == round(192 * sparsity)
        assert all(torch.equal(weight != 0, mask) for mask, weight in outcome.values())
    assert all(torch.equal(v, before[k]) for k, v in linear_net.state_dict().items())
    with pytest.raises(ValueError, match="sparsities must lie strictly between 0 and 1"):
        list(modifier.sweep(linear_net, [1.0], grad_sampler=sampler()))


class Run:
    def __init__(self, modifier):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=0.02)
        self.manager = ScheduledModifierManager([modifier])
        self.stepper = self.manager.modify(
            self.net, self.optimizer, steps_per_epoch=4, grad_sampler=sampler()
        )

    def step(self, number):
        generator = torch.Generator().manual_seed(number)
        self.optimizer.zero_grad()
        (self.net(torch.randn(5, 8, generator=generator)) - 1).pow(2).mean().backward()
        self.stepper.step()

    def state(self):
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "manager": self.manager.state_dict(),
        }

    def load(self, state):
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.manager.load_state_dict(state["manager"])


BUFFERING = {"buffering": lambda: MAKERS["mfac"](use_gradient_buffering=True, num_grads=2)}


@pytest.mark.parametrize("make", [*MAKERS.values(), *BUFFERING.values()], ids=[*MAKERS, *BUFFERING])
def test_resumes_in_the_middle(make, tmp_path):
    whole = Run(make())
    for step in range(12):
        whole.step(step)
        if step in (3, 7):
            torch.save(whole.state(), tmp_path / f"{step}.pt")
    assert sum(count_zeros(whole.net).values()) >= round(192 * 0.75)
    for stop in (3, 7):
        rest = Run(make())
        rest.load(torch.load(tmp_path / f"{stop}.pt", weights_only=True))
        for step in range(stop + 1, 12):
            rest.step(step)
        for key, value in whole.net.state_dict().items():
            assert torch.equal(value, rest.net.state_dict()[key]), (stop, key)


@ALL
def test_epochs_of_one_step_are_epochs(make, linear_net):
    modifier = make(start_epoch=0.0, end_epoch=3.0, update_frequency=1.0)
    optimizer = torch.optim.SGD(linear_net.parameters(), lr=0.05)
    manager = ScheduledModifierManager([modifier])
    stepper = manager.modify(linear_net, optimizer, steps_per_epoch=1, grad_sampler=sampler())
    for _ in range(5):
        optimizer.zero_grad()
        linear_net(torch.randn(6, 8)).pow(2).mean().backward()
        stepper.step()
    assert sum(count_zeros(linear_net).values()) == round(192 * 0.75)


@ALL
def test_needs_a_sampler(make, linear_net):
    changes = {"use_gradient_buffering": False} if make is MAKERS["mfac"] else {}
    with pytest.raises(RuntimeError, match="give grad_sampler="):
        make(**changes).initialize(linear_net)
    with pytest.raises(RuntimeError, match="data_loader_builder must be callable"):
        make().initialize(linear_net, grad_sampler={"loss_fn": print})


@ALL
def test_too_many_bad_gradients_change_nothing(make, linear_net):
    before = copy.deepcopy(linear_net.state_dict())
    broken = sampler(loss_function=lambda out, target: out.sum() * float("nan"))
    with pytest.raises(RuntimeError, match=r"not finite.*nothing has been pruned"):
        make().apply(linear_net, grad_sampler=broken)
    assert all(torch.equal(v, before[k]) for k, v in linear_net.state_dict().items())


@ALL
def test_the_training_batch_keeps_its_gradients(make, linear_net):
    modifier = make()
    modifier.initialize(linear_net, grad_sampler=sampler())
    linear_net(torch.randn(3, 8)).sum().backward()
    bias = linear_net[0].bias.grad.clone()
    modifier.check_mask_update(linear_net, 1.0, 4)
    assert torch.equal(linear_net[0].bias.grad, bias)
    assert linear_net[0].weight.grad is not None


@ALL
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_grads", 0, "num_grads must be at least 1, found 0"),
        ("num_grads", 1.5, "num_grads must be a whole number, found 1.5"),
        ("final_sparsity", 1.0, "final_sparsity must lie strictly between 0 and 1"),
        ("damp", 0.0, "damp must be a finite number above 0, found 0.0"),
        ("damp", "-1e-3", "damp must be a finite number above 0, found '-1e-3'"),
        ("fisher_block_size", 0, "fisher_block_size must be at least 1"),
    ],
)
def test_wrong_fields(make, field, value, message):
    if make is MAKERS["gw"] and field in ("damp", "fisher_block_size"):
        pytest.skip("has no Fisher matrix")
    with pytest.raises(ValueError, match=message):
        make(**{field: value})


@ALL
def test_blocks_larger_than_the_tensor_and_more_gradients_than_data(make, linear_net, caplog):
    changes = {} if make is MAKERS["gw"] else {"fisher_block_size": 1000}
    make(**changes, num_grads=20).apply(linear_net, grad_sampler=sampler())
    assert sum(count_zeros(linear_net).values()) == 144
    assert caplog.text.count("ended after 9 batches and are repeated") == 1


@ALL
def test_serialised_recipe_is_equal(make):
    modifier = make()
    again = Modifier.load_obj(str(modifier))
    assert again.props(only_serializable=True) == modifier.props(only_serializable=True)
    recipe = ScheduledModifierManager.from_yaml(f"modifiers:\n  - {modifier}")
    assert ScheduledModifierManager.from_yaml(str(recipe)) == recipe


def test_n_of_m_that_does_not_divide_names_the_layer():
    net = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    modifier = MAKERS["cap"](mask_type="2:4", init_sparsity=0.5, final_sparsity=0.5)
    with pytest.raises(ValueError, match=r"'2:4' cannot mask 1\.weight: .* multiple of 4"):
        modifier.apply(net, grad_sampler=sampler())


def test_half_precision_weights(linear_net):
    linear_net.bfloat16()
    data = [([torch.randn(4, 8).bfloat16()], {}, torch.randn(4, 4).bfloat16()) for _ in range(8)]
    given = {**sampler(), "data_loader_builder": lambda: data}
    MAKERS["cap"]().apply(linear_net, grad_sampler=given)
    assert sum(count_zeros(linear_net).values()) == 144
    assert linear_net[0].weight.dtype == torch.bfloat16


def test_copies_go_on_sampling_by_themselves(linear_net):
    modifier = MAKERS["cap"]()
    modifier.initialize(linear_net, grad_sampler=sampler())
    modifier.check_mask_update(linear_net, 1.0, 4)
    net, copied = copy.deepcopy((linear_net, modifier))
    for one, model in ((modifier, linear_net), (copied, net)):
        one.check_mask_update(model, math.inf, 4)
    assert torch.equal(net[0].weight, linear_net[0].weight)
    assert sum(count_zeros(net).values()) == 144
