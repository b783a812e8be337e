"""Training with weights that stand for a power of themselves."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import (
    GlobalMagnitudePruningModifier,
    PowerpropagationModifier,
    PowerpropagationWrapper,
)
from sparseml.pytorch.utils import load_checkpoint, save_checkpoint

RANGE = {"start_epoch": 0.5, "end_epoch": 2.0}
WEIGHTS = ["re:.*weight"]


def propagation(params, alpha=1.0, start_epoch=-1.0, end_epoch=-1.0, **fields):
    return PowerpropagationModifier(start_epoch, end_epoch, params, alpha, **fields)


class TestWrapper:
    @pytest.mark.parametrize(
        "layer,shape",
        [
            (nn.Linear(8, 4), (2, 8)),
            (nn.Linear(8, 4, bias=False), (2, 3, 8)),
            (nn.Conv2d(4, 6, 3, padding=1, groups=2, padding_mode="circular"), (2, 4, 5, 5)),
        ],
    )
    def test_computes_the_same_at_every_alpha(self, layer, shape):
        inputs = torch.randn(shape)
        expected = layer(inputs)
        weight = layer.weight
        wrapper = PowerpropagationWrapper(layer)
        assert torch.equal(wrapper(inputs), expected)
        for alpha in (2.0, 3.5, 1.25):
            wrapper.set_alpha(alpha)
            assert wrapper.alpha == alpha
            assert torch.allclose(wrapper(inputs), expected, atol=1e-5)
        wrapper.set_alpha(1.0)
        assert layer.weight is weight and torch.allclose(layer(inputs), expected, atol=1e-5)

    def test_keeps_zeros_and_gets_gradients_through_the_power(self):
        layer = nn.Linear(3, 1, bias=False)
        layer.weight.data = torch.tensor([[0.0, 4.0, -9.0]])
        wrapper = PowerpropagationWrapper(layer)
        wrapper(torch.ones(1, 3)).sum().backward()
        wrapper.set_alpha(2.0)
        assert torch.allclose(layer.weight.data, torch.tensor([[0.0, 2.0, -3.0]]))
        before = layer.weight.grad
        layer.weight.grad = None
        wrapper(torch.ones(1, 3)).sum().backward()
        assert torch.allclose(before, layer.weight.grad)
        assert torch.allclose(before, torch.tensor([[0.0, 4.0, 6.0]]))

    def test_state_copies_and_pickles(self):
        wrapper = PowerpropagationWrapper(nn.Linear(2, 2), alpha=2.0)
        assert sorted(wrapper.state_dict()) == ["alpha", "layer.bias", "layer.weight"]
        x = torch.ones(1, 2)
        for twin in (copy.deepcopy(wrapper), pickle.loads(pickle.dumps(wrapper))):  # noqa: S301
            assert torch.equal(twin(x), wrapper(x))
        assert torch.equal(wrapper(x), x @ (wrapper.layer.weight.abs() * wrapper.layer.weight).T
                           + wrapper.layer.bias)  # fmt: skip

    def test_wrong_input(self):
        with pytest.raises(ValueError, match="for Linear and Conv2d, found Conv1d"):
            PowerpropagationWrapper(nn.Conv1d(2, 2, 1))
        with pytest.raises(ValueError, match=r"alpha must be at least 1, found 0\.5"):
            PowerpropagationWrapper(nn.Linear(2, 2), 0.5)
        with pytest.raises(ValueError, match="alpha must be at least 1"):
            PowerpropagationWrapper(nn.Linear(2, 2)).set_alpha(float("nan"))


class TestModifier:
    def test_fields(self):
        modifier = propagation(WEIGHTS, alpha="2", strict=False)
        assert (modifier.alpha, modifier.strict, modifier.sparsification_types) == (2.0, False, [])
        assert "strict" not in str(modifier) and "alpha: 2\n" in str(modifier)
        assert propagation("__all_prunable__").params == "__ALL_PRUNABLE__"
        with pytest.raises(ValueError, match="alpha must be at least 1"):
            propagation(WEIGHTS, alpha=0.9)

    def test_neither_start_nor_end_changes_what_is_computed(self, linear_net, train):
        modifier = propagation(["0.weight"], 2.0, **RANGE)
        plain = copy.deepcopy(linear_net)
        modules, keys = list(linear_net.modules()), list(linear_net.state_dict())
        optimizers = [torch.optim.SGD(net.parameters(), lr=0.0) for net in (linear_net, plain)]
        inputs = torch.randn(3, 8)
        for epoch in train(linear_net, [modifier], 12, optimizers[0]):
            wrapped = isinstance(linear_net[0], PowerpropagationWrapper)
            assert wrapped == (0.5 <= epoch < 2.0)
            assert torch.allclose(linear_net(inputs), plain(inputs), atol=1e-5)
        assert list(linear_net.modules()) == modules and list(linear_net.state_dict()) == keys

    def test_pushes_weights_to_zero(self):
        def small(alpha):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.01)
            modifier = propagation("__ALL_PRUNABLE__", alpha, end_epoch=49.0)
            stepper = ScheduledModifierManager([modifier]).modify(net, optimizer, 4)
            for _ in range(200):
                optimizer.zero_grad()
                inputs = torch.randn(32, 8)
                (net(inputs) - inputs[:, :4]).square().mean().backward()
                stepper.step()
            assert modifier.ended
            weight = net[0].weight.detach().abs()
            return (weight < 0.05 * weight.max()).double().mean().item()

        assert small(3.0) > 2 * small(1.0)

    def test_finalize_and_one_shot_leave_plain_layers(self, linear_net):
        expected = copy.deepcopy(linear_net.state_dict())
        layers = list(linear_net)
        modifier = propagation(WEIGHTS, 2.0)
        modifier.apply(linear_net)
        modifier.initialize(linear_net)
        modifier.scheduled_update(linear_net, None, 0.0, 4)
        assert isinstance(linear_net[2], PowerpropagationWrapper)
        modifier.finalize(linear_net)
        assert list(linear_net) == layers
        for name, value in linear_net.state_dict().items():
            assert torch.allclose(value, expected[name], atol=1e-6)

    def test_pruned_weights_stay_pruned(self, linear_net, train, sparsities):
        pruning = GlobalMagnitudePruningModifier(
            params=WEIGHTS, init_sparsity=0.1, final_sparsity=0.5, start_epoch=0.25,
            end_epoch=1.0, update_frequency=0.25,
        )  # fmt: skip
        for _ in train(linear_net, [propagation(WEIGHTS, 2.0, **RANGE), pruning], 12):
            assert all(p.isfinite().all() for p in linear_net.parameters())
        found = sparsities(linear_net)
        assert 128 * found["0.weight"] + 64 * found["2.weight"] == pytest.approx(96)

    @pytest.mark.parametrize(
        "params,error,message",
        [
            (["0.wieght"], RuntimeError, "did you mean '0.weight'"),
            ("__ALL__", ValueError, "for Linear and Conv2d, found BatchNorm1d"),
        ],
    )
    def test_wrong_params(self, linear_net, params, error, message):
        linear_net.append(nn.BatchNorm1d(4))
        modifier = propagation(params, 2.0)
        with pytest.raises(error, match=message):
            modifier.initialize(linear_net)
        assert not modifier.initialized

    def test_lenient_params_and_lone_layers(self, linear_net):
        modifier = propagation(["0.weight", "9.weight"], 2.0, strict=False)
        modifier.initialize(linear_net)
        modifier.scheduled_update(linear_net, None, 0.0, 4)
        assert [type(layer).__name__ for layer in linear_net] == [
            "PowerpropagationWrapper", "ReLU", "Linear",
        ]  # fmt: skip
        with pytest.raises(ValueError, match="selects the Linear itself"):
            propagation(["weight"]).initialize(nn.Linear(2, 2))

    def test_stopping_after_any_step_changes_nothing(self, tmp_path):
        def start():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
            manager = ScheduledModifierManager([propagation(WEIGHTS, 2.0, **RANGE)])
            return net, optimizer, manager, manager.modify(net, optimizer, 4)

        def step(run, number):
            generator = torch.Generator().manual_seed(number)
            run[1].zero_grad()
            run[0](torch.randn(3, 2, 4, 4, generator=generator)).square().mean().backward()
            run[3].step()

        whole = start()
        for number in range(10):
            path = tmp_path / f"{number}.pt"
            save_checkpoint(path, whole[0], optimizer=whole[1], manager=whole[2])
            step(whole, number)
        expected = whole[0].state_dict()
        for stop in range(10):
            run = start()
            load_checkpoint(tmp_path / f"{stop}.pt", run[0], optimizer=run[1], manager=run[2])
            for number in range(stop, 10):
                step(run, number)
            found = run[0].state_dict()
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[k], expected[k]) for k in found), stop

    def test_states_need_the_structure_first(self, linear_net):
        modifier, other = (propagation(WEIGHTS, 2.0) for _ in range(2))
        modifier.initialize(linear_net)
        modifier.scheduled_update(linear_net, None, 0.0, 4)
        fresh = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        other.initialize(fresh)
        with pytest.raises(RuntimeError, match="call load_structure_state"):
            other.load_progress_state(modifier.progress_state())
        other.load_structure_state(fresh, modifier.progress_state())
        fresh.load_state_dict(linear_net.state_dict())
        other.load_progress_state(modifier.progress_state())
        inputs = torch.randn(2, 8)
        assert other.started and torch.equal(fresh(inputs), linear_net(inputs))
