"""Regularizing activations towards sparsity."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparseml.pytorch.functional.activations import activation_penalty
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import REG_FUNCTIONS, REG_TENSORS, ASRegModifier
from sparseml.pytorch.utils import LambdaLogger, LoggerManager
from sparseml.sparsification.types import SparsificationTypes

RANGE = {"start_epoch": 1.0, "end_epoch": 2.0}


def update(modifier, net, inputs, epoch=0.0):
    net(inputs)
    return modifier.loss_update(torch.ones(()), net, None, epoch, 4, student_inputs=inputs)


@pytest.fixture
def inputs():
    return torch.randn(6, 8)


class TestFields:
    def test_defaults(self):
        modifier = ASRegModifier(["1"], 0.1)
        assert (modifier.reg_func, modifier.reg_tens, modifier.layer_normalized) == (
            "l1", "inp", False,
        )  # fmt: skip
        assert (modifier.start_epoch, modifier.end_epoch) == (-1.0, -1.0)
        assert modifier.sparsification_types == [
            SparsificationTypes.activation_sparsity, SparsificationTypes.regularization,
        ]  # fmt: skip
        assert REG_FUNCTIONS == ["l1", "l2", "relu", "hs"] and REG_TENSORS == ["inp", "out"]

    @pytest.mark.parametrize(
        "fields,error,message",
        [
            ({"alpha": [0.1, 0.2]}, ValueError, "one for each of 1 layers"),
            ({"layers": "__ALL__", "alpha": [0.1]}, TypeError, "one number for __ALL__"),
            ({"alpha": "much"}, ValueError, "alpha must be a number"),
            ({"alpha": None}, TypeError, "alpha must be a number"),
            ({"reg_func": "l3"}, ValueError, "reg_func must be 'l1', 'l2'"),
            ({"reg_tens": "input"}, ValueError, "reg_tens must be 'inp' or 'out'"),
            ({"layers": "1"}, ValueError, "for layers"),
        ],
    )
    def test_bad_values(self, fields, error, message):
        with pytest.raises(error, match=message):
            ASRegModifier(**{"layers": ["1"], "alpha": 0.1, **fields})

    def test_unknown_layer(self, linear_net):
        modifier = ASRegModifier(["1", "relu"], 0.1)
        with pytest.raises(RuntimeError, match="'relu' matches no layer"):
            modifier.initialize(linear_net)
        assert not modifier.initialized


class TestLoss:
    @pytest.mark.parametrize("reg_tens", REG_TENSORS)
    @pytest.mark.parametrize("reg_func", REG_FUNCTIONS)
    def test_definition(self, linear_net, inputs, reg_func, reg_tens):
        modifier = ASRegModifier(["1"], 0.1, reg_func=reg_func, reg_tens=reg_tens)
        modifier.initialize(linear_net)
        hidden = linear_net[0](inputs)
        seen = hidden if reg_tens == "inp" else hidden.relu()
        expected = 1.0 + 0.1 * activation_penalty([seen], reg_func)
        total = update(modifier, linear_net, inputs)
        assert torch.isclose(total, expected)
        total.backward()
        assert linear_net[0].weight.grad.abs().sum() > 0

    @pytest.mark.parametrize("reg_func", REG_FUNCTIONS)
    def test_inputs_of_a_layer_that_works_in_place(self, linear_net, inputs, reg_func):
        linear_net[1].inplace = True
        modifier = ASRegModifier(["1"], 0.1, reg_func=reg_func)
        modifier.initialize(linear_net)
        expected = 1.0 + 0.1 * activation_penalty([linear_net[0](inputs)], reg_func)
        total = update(modifier, linear_net, inputs)
        assert torch.isclose(total, expected)
        total.backward()
        assert linear_net[0].weight.grad.abs().sum() > 0

    def test_weights_of_their_own_and_patterns(self, linear_net, inputs):
        modifier = ASRegModifier(["1", "re:[12]"], [0.5, 0.25], True, reg_tens="out")
        modifier.initialize(linear_net)
        hidden = linear_net[0](inputs).relu()
        parts = [activation_penalty([x], "l1") for x in (hidden, linear_net[2](hidden))]
        expected = 1.0 + (0.5 * parts[0] + 0.25 * parts[1]) / 2
        assert torch.isclose(update(modifier, linear_net, inputs), expected)

    def test_all_layers(self, linear_net, inputs):
        total, found = {}, {}
        for layers in ("__ALL__", "__ALL_PRUNABLE__"):
            modifier = ASRegModifier(layers, 1.0, reg_func="l2", reg_tens="out")
            modifier.initialize(linear_net)
            total[layers] = update(modifier, linear_net, inputs).item()
            found[layers] = sorted(modifier._last)
            modifier.finalize(linear_net)
        assert found == {"__ALL__": ["0", "1", "2"], "__ALL_PRUNABLE__": ["0", "2"]}
        assert total["__ALL__"] > total["__ALL_PRUNABLE__"] > 1.0

    def test_several_inputs_and_integer_ones(self):
        net = nn.Sequential(nn.Embedding(4, 2))
        net.add_module("pair", nn.Bilinear(2, 3, 1))
        net.forward = lambda x: net.pair(net[0](torch.tensor([1, 2])), x)
        modifier = ASRegModifier(["0", "pair"], 1.0)
        modifier.initialize(net)
        x = torch.ones(2, 3)
        expected = 1.0 + activation_penalty([net[0].weight[1:3], x], "l1")
        assert torch.isclose(update(modifier, net, x), expected)

    def test_half_precision(self, linear_net, inputs):
        linear_net.bfloat16()
        modifier = ASRegModifier(["1"], 1.0, reg_func="l2")
        modifier.initialize(linear_net)
        total = update(modifier, linear_net, inputs.bfloat16())
        total.backward()
        assert total.dtype == torch.float32 and linear_net[0].weight.grad.isfinite().all()

    def test_makes_activations_sparser(self, linear_net):
        def density(alpha):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            manager = ScheduledModifierManager([ASRegModifier(["1"], alpha, reg_tens="out")])
            stepper = manager.modify(net, optimizer, 4)
            data = torch.randn(64, 8)
            for _ in range(200):
                optimizer.zero_grad()
                stepper.loss_update((net(data) - data[:, :1]).square().mean()).backward()
                stepper.step()
            return (net[:2](data) > 0).double().mean().item()

        assert density(0.05) < 0.6 * density(0.0)


class TestSchedule:
    def test_from_start_to_end_inclusive(self, linear_net, inputs):
        logged = []
        logger = LambdaLogger(lambda tag, value, **_: logged.append(tag))
        modifier = ASRegModifier(["1"], 0.1, **RANGE)
        modifier.initialize(
            linear_net, loggers=LoggerManager([logger], log_frequency=0.0, log_python=False)
        )
        active = []
        for step in range(12):
            epoch = step / 4
            active.append(update(modifier, linear_net, inputs, epoch).item() != 1.0)
            if modifier.update_ready(epoch, 4):
                modifier.scheduled_update(linear_net, None, epoch, 4)
                modifier.scheduled_log_update(linear_net, None, epoch, 4)
        assert active == [False] * 4 + [True] * 5 + [False] * 3
        assert logged == ["ASRegModifier/1"] * 5
        assert not linear_net[1]._forward_hooks and not linear_net[1]._forward_pre_hooks

    def test_nothing_is_kept_from_passes_before(self, linear_net, inputs):
        modifier = ASRegModifier(["1"], 0.1)
        modifier.initialize(linear_net)
        update(modifier, linear_net, inputs)
        again = modifier.loss_update(torch.ones(()), linear_net, None, 0.0, 4)
        assert again == 1.0

    def test_initialize_again_and_finalize(self, linear_net, inputs):
        modifier = ASRegModifier(["1"], 0.1)
        modifier.initialize(linear_net)
        modifier.initialize(linear_net)
        assert len(linear_net[1]._forward_pre_hooks) == 1
        modifier.finalize(linear_net)
        assert not linear_net[1]._forward_pre_hooks

    @pytest.mark.parametrize("stop", [0, 3, 6, 9, 11])
    def test_resumes(self, stop):
        def start():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
            manager = ScheduledModifierManager([ASRegModifier(["1"], 0.1, **RANGE)])
            return net, optimizer, manager, manager.modify(net, optimizer, 4)

        def step(run, number):
            generator = torch.Generator().manual_seed(number)
            run[1].zero_grad()
            loss = run[0](torch.randn(3, 8, generator=generator)).square().mean()
            run[3].loss_update(loss).backward()
            run[3].step()

        whole, resumed = start(), start()
        for number in range(12):
            if number == stop:
                for part, other in zip(resumed[:3], whole[:3], strict=True):
                    part.load_state_dict(copy.deepcopy(other.state_dict()))
            step(whole, number)
            if number >= stop:
                step(resumed, number)
        pairs = zip(whole[0].parameters(), resumed[0].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
