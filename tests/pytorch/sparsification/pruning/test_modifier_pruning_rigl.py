from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sparseml.pytorch.functional.layer_densities import density_counts
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import Modifier
from sparseml.pytorch.sparsification.pruning import RigLPruningModifier, RigLPruningParamsScorer

FIELDS = {
    "final_sparsity": 0.75,
    "start_epoch": 1.0,
    "end_epoch": 4.0,
    "update_frequency": 0.5,
    "params": ["re:.*weight"],
    "num_grads": 3,
}


def loss(output, target):
    return (output - target).pow(2).mean()


def samples(shape=(5, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    while True:
        inputs = torch.randn(shape, generator=generator)
        yield [inputs], {}, torch.ones(())


SAMPLER = {"data_loader_builder": samples, "loss_function": loss}


def run(net, modifier, steps, optimizer=None, sampler=SAMPLER, per_epoch=4):
    optimizer = optimizer or torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    manager = ScheduledModifierManager([modifier])
    stepper = manager.modify(net, optimizer, steps_per_epoch=per_epoch, grad_sampler=sampler)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        optimizer.zero_grad()
        loss(net(torch.randn(6, 8, generator=generator)), 1.0).backward()
        stepper.step()
        yield step / per_epoch


def test_counts_hold_from_start_to_end(linear_net):
    modifier = RigLPruningModifier(**FIELDS)
    counts = density_counts([(16, 8), (4, 16)], 0.75)
    assert sum(counts) == 144
    for epoch in run(linear_net, modifier, 24):
        zeros = [int((mask == 0).sum()) for mask in modifier.state_dict().values()]
        assert zeros == (counts if epoch >= 1.0 else [0, 0])
        if epoch >= 1.0:
            assert modifier.applied_sparsity == [counts[0] / 128, counts[1] / 64]
            for layer, mask in zip(
                (linear_net[0], linear_net[2]), modifier.state_dict().values(), strict=True
            ):
                assert not layer.weight[mask == 0].any()


def test_an_update_by_brute_force():
    torch.manual_seed(0)
    layer = nn.Linear(8, 8, bias=False).double()
    modifier = RigLPruningModifier(**{**FIELDS, "start_epoch": 0.0}, sparsity_strategy="uniform")
    data = [([torch.randn(4, 8).double()], {}, torch.ones(())) for _ in range(3)]
    sampler = {"data_loader_builder": lambda: data, "loss_fn": loss}
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    manager = ScheduledModifierManager([modifier])
    stepper = manager.modify(layer, optimizer, steps_per_epoch=4, grad_sampler=sampler)
    for step in range(16):
        optimizer.zero_grad()
        loss(layer(data[step % 3][0][0]), 1.0).backward()
        weight = layer.weight.detach().clone()
        total = torch.zeros_like(weight)
        for (inputs,), _, _ in data:
            dense = weight.clone().requires_grad_()
            total += torch.autograd.grad(loss(inputs @ dense.T, 1.0), dense)[0]
        stepper.step()
        if step % 2:
            continue
        moved = 0.15 * (1 + math.cos(math.pi * step / 16))
        kept = 16 - round(16 * moved)
        largest = weight.abs().flatten().topk(kept).indices
        rest = total.abs().flatten().scatter(0, largest, -1.0)
        grown = rest.topk(16 - kept).indices
        mask = next(iter(modifier.state_dict().values())).flatten()
        assert set(mask.nonzero()[:, 0].tolist()) == {*largest.tolist(), *grown.tolist()}


def test_pruned_weights_come_back_from_zero(linear_net):
    modifier = RigLPruningModifier(**FIELDS)
    before, regrown = None, 0
    for epoch in run(linear_net, modifier, 16):
        mask = modifier.state_dict()["0.weight.sparsity_mask"]
        if before is not None and epoch > 1.0:
            new = (mask == 1) & (before == 0)
            regrown += int(new.sum())
            assert not linear_net[0].weight[new].any()
        before = mask
    assert regrown > 5


def test_sampling_leaves_no_trace():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4))
    net[1].eval()
    modifier = RigLPruningModifier(**{**FIELDS, "params": "__ALL_PRUNABLE__"})
    modifier.initialize(net, grad_sampler=SAMPLER)
    loss(net(torch.randn(6, 8)), 1.0).backward()
    grads = [param.grad for param in net.parameters()]
    values = [grad.clone() for grad in grads]
    buffers = [buffer.clone() for buffer in net.buffers()]
    rng = torch.get_rng_state()
    modifier.check_mask_update(net, 1.0, 4)
    assert [part.training for part in net.modules()] == [True, True, False, True, True]
    assert all(param.grad is grad for param, grad in zip(net.parameters(), grads, strict=True))
    assert all(torch.equal(grad, value) for grad, value in zip(grads, values, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), buffers, strict=True))
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("reset", [True, False])
def test_moments_of_zero_weights_are_kept_at_zero(linear_net, reset):
    optimizer = torch.optim.Adam(linear_net.parameters(), lr=0.01)
    modifier = RigLPruningModifier(**FIELDS, momentum_buffer_reset=reset)
    epochs = run(linear_net, modifier, 10, optimizer)
    for _ in epochs:
        pass
    weight = linear_net[0].weight
    state = optimizer.state[weight]
    state["momentum_buffer"] = torch.zeros_like(weight)
    for name in ("exp_avg", "exp_avg_sq", "momentum_buffer"):
        state[name].fill_(7.0)
    modifier.optimizer_pre_step(linear_net, optimizer, 2.5, 4)
    for name in ("exp_avg", "exp_avg_sq", "momentum_buffer"):
        expected = torch.where(weight == 0, 0.0, 7.0) if reset else torch.full_like(weight, 7.0)
        assert torch.equal(state[name], expected)


def test_the_builder_gets_keyword_arguments(linear_net):
    seen = []

    def builder(**kwargs):
        seen.append(kwargs)
        return samples(**kwargs)

    fields = {**FIELDS, "grad_sampler_kwargs": {"shape": [2, 8], "seed": 4}}
    sampler = {"data_loader_builder": builder, "loss_fn": loss}
    RigLPruningModifier(**fields).apply(linear_net, grad_sampler=sampler)
    assert seen == [{"shape": [2, 8], "seed": 4}]


@pytest.mark.parametrize("sampler", [None, {"loss_fn": loss}, {"data_loader_builder": samples}, 5])
def test_a_sampler_is_needed(linear_net, sampler):
    with pytest.raises(RuntimeError, match="RigLPruningModifier prunes by gradients"):
        RigLPruningModifier(**FIELDS).initialize(linear_net, grad_sampler=sampler)


@pytest.mark.parametrize("again", [True, False])
def test_data_that_end_repeat(linear_net, caplog, again):
    few = [sample for _, sample in zip(range(2), samples(), strict=False)]
    builder = (lambda: few) if again else (lambda: iter(few))
    modifier = RigLPruningModifier(**{**FIELDS, "num_grads": 7, "start_epoch": 0.0})
    modifier.initialize(linear_net, grad_sampler={**SAMPLER, "data_loader_builder": builder})
    modifier.check_mask_update(linear_net, 0.0, 4)
    assert caplog.text.count("are repeated") == 1


def test_gradients_that_are_not_finite_change_nothing(linear_net):
    sampler = {**SAMPLER, "loss_function": lambda output, target: output.sum() * math.nan}
    modifier = RigLPruningModifier(**{**FIELDS, "start_epoch": 0.0})
    modifier.initialize(linear_net, grad_sampler=sampler)
    before = linear_net[0].weight.detach().clone()
    with pytest.raises(RuntimeError, match="not finite"):
        modifier.check_mask_update(linear_net, 0.0, 4)
    assert torch.equal(linear_net[0].weight, before)


def test_fields():
    modifier = RigLPruningModifier(**{**FIELDS, "num_grads": 1})
    assert modifier.init_sparsity == modifier.final_sparsity == 0.75
    assert modifier._num_grads == 1 and modifier._grad_sampler_kwargs == {}
    assert modifier._sparsity_strategy == "erdos_renyi_kernel"
    assert modifier.init_update_fraction == 0.3 and modifier.momentum_buffer_reset
    assert "init_sparsity" not in str(modifier) and "inter_func: cubic" in str(modifier)
    assert modifier._init_sparsity == 0.75
    assert RigLPruningModifier(**FIELDS, inter_func="linear").inter_func == "linear"
    assert not RigLPruningModifier(**FIELDS, global_sparsity=True).global_sparsity
    assert str(Modifier.load_obj(str(modifier))) == str(modifier)
    assert modifier.get_applied_sparsity_for_epoch(0.0, 4) == [0.75]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"mask_type": "block4"}, AssertionError),
        ({"mask_type": "block4"}, ValueError),
        ({"sparsity_strategy": "erk"}, AssertionError),
        ({"inter_func": "quadratic"}, ValueError),
        ({"num_grads": 0}, ValueError),
        ({"num_grads": 1.5}, ValueError),
        ({"init_update_fraction": 1.5}, ValueError),
        ({"final_sparsity": 1.0}, ValueError),
        ({"grad_sampler_kwargs": [1]}, TypeError),
    ],
)
def test_wrong_fields(wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        RigLPruningModifier(**{**FIELDS, **wrong})


def test_vectors_are_refused_by_name(linear_net):
    modifier = RigLPruningModifier(**{**FIELDS, "params": "__ALL__"})
    with pytest.raises(ValueError, match=r"matrices and convolutions; leave out 0\.bias, 2\.bias"):
        modifier.initialize(linear_net, grad_sampler=SAMPLER)


def test_convolutions(conv_net):
    modifier = RigLPruningModifier(**FIELDS)
    sampler = {**SAMPLER, "data_loader_builder": lambda: samples((2, 4, 5, 5))}
    modifier.apply(conv_net, grad_sampler=sampler)
    zeros = [int((conv_net[place].weight == 0).sum()) for place in (0, 2)]
    assert zeros == density_counts([(8, 4, 3, 3), (8, 8, 3, 3)], 0.75)
    assert sum(zeros) == 648


def test_the_scorer_needs_gradients():
    with pytest.raises(RuntimeError, match="has no scores"):
        RigLPruningParamsScorer([nn.Parameter(torch.ones(2, 2))]).score_parameters()
