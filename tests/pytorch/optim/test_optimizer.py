"""The optimizer for loops that insist on one."""

from __future__ import annotations

import copy

import pytest
import torch

from sparseml.pytorch.optim import (
    RecipeManagerStepWrapper,
    ScheduledModifierManager,
    ScheduledOptimizer,
)
from sparseml.pytorch.sparsification import EpochRangeModifier, SetWeightDecayModifier
from sparseml.pytorch.utils import LoggerManager


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


@pytest.fixture
def inner(model):
    return torch.optim.SGD(
        [{"params": [model.weight]}, {"params": [model.bias]}], lr=0.5, momentum=0.9
    )


@pytest.fixture
def manager():
    return ScheduledModifierManager(
        [EpochRangeModifier(0.0, 1.0), SetWeightDecayModifier(0.25, 0.5)]
    )


@pytest.fixture
def optimizer(model, inner, manager):
    return ScheduledOptimizer(inner, model, manager, 4)


def train(optimizer, model, steps=1):
    for _ in range(steps):
        optimizer.zero_grad()
        optimizer.loss_update(model(torch.ones(2, 3)).pow(2).sum()).backward()
        optimizer.step()


def test_is_an_optimizer_that_drives_the_manager(model, inner, manager, optimizer):
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.manager is manager and manager.initialized
    train(optimizer, model, 2)
    assert manager.modifiers[0].started and not manager.modifiers[1].started
    train(optimizer, model, 1)
    assert [group["weight_decay"] for group in inner.param_groups] == [0.25, 0.25]


def test_initialises_the_manager_at_epoch_zero(model, inner, manager, monkeypatch):
    calls = []
    original = manager.initialize
    monkeypatch.setattr(
        manager, "initialize", lambda *a, **k: (calls.append((a, k)), original(*a, **k))
    )
    loggers = LoggerManager(log_python=False)
    ScheduledOptimizer(inner, model, manager, 4, loggers, {"grad_sampler": 1})
    assert calls == [((model, 0.0), {"loggers": loggers, "grad_sampler": 1})]
    assert manager.loggers is loggers


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_per_epoch_must_be_positive(model, inner, manager, steps):
    with pytest.raises(ValueError, match="steps_per_epoch"):
        ScheduledOptimizer(inner, model, manager, steps)


def test_learning_rate(inner, optimizer):
    assert optimizer.learning_rate == 0.5
    optimizer.learning_rate = 0.25
    assert [group["lr"] for group in inner.param_groups] == [0.25, 0.25]


def test_everything_else_is_the_inner_optimizers(model, inner, optimizer):
    assert optimizer.param_groups is inner.param_groups and optimizer.state is inner.state
    assert optimizer.defaults is inner.defaults and repr(optimizer) == repr(inner)
    optimizer.note = 1
    assert optimizer.note == 1 and not hasattr(inner, "note")
    with pytest.raises(AttributeError):
        optimizer.manager = None
    train(optimizer, model)
    state = copy.deepcopy(optimizer.state_dict())
    assert state["state"][0]["momentum_buffer"].equal(inner.state[model.weight]["momentum_buffer"])
    train(optimizer, model)
    optimizer.load_state_dict(state)
    assert inner.state[model.weight]["momentum_buffer"].equal(state["state"][0]["momentum_buffer"])
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    assert len(inner.param_groups) == 3
    optimizer.zero_grad()
    assert model.weight.grad is None


def test_closure_is_given_positionally(model, manager):
    class Positional(torch.optim.SGD):
        def step(self, closure, /):
            return closure()

    optimizer = ScheduledOptimizer(Positional(model.parameters(), lr=0.1), model, manager, 4)
    assert optimizer.step(lambda: 3) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=2, gamma=0.5),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.5 ** (step // 2)),
    ],
)
def test_torch_schedulers_accept_it(model, optimizer, make):
    scheduler = make(optimizer)
    rates = []
    for _ in range(5):
        rates.append(optimizer.learning_rate)
        train(optimizer, model)
        scheduler.step()
    assert rates == [0.5, 0.5, 0.25, 0.25, 0.125]
    assert optimizer.manager.modifiers[0].ended


def test_manager_state(model, inner, optimizer):
    train(optimizer, model, 3)
    state = optimizer.manager_state_dict()
    assert state["__progress__"]["steps"] == 3
    again = ScheduledModifierManager.from_yaml(str(optimizer.manager))
    other = ScheduledOptimizer(inner, model, again, 4)
    other.load_manager_state_dict(state)
    assert other.wrapped_steps == 3
    assert other.manager_state_dict() == state


def test_adjusting_the_step_only_warns(optimizer):
    with pytest.warns(UserWarning, match="no effect"):
        optimizer.adjust_current_step(3, 1)
    assert optimizer.wrapped_steps == 0


def test_copies(model, optimizer):
    train(optimizer, model)
    twin = copy.deepcopy(optimizer)
    assert twin.wrapped_steps == 1 and twin.wrapped is not optimizer.wrapped
    twin.step()
    assert optimizer.wrapped_steps == 1


def test_code_of_1x_finds_the_step_wrapper(model, inner, manager):
    scheduled = ScheduledOptimizer(inner, model, manager, steps_per_epoch=10)
    assert isinstance(scheduled._wrapper, RecipeManagerStepWrapper)
    assert scheduled._wrapper.wrapped is inner
    assert scheduled._wrapper.wrapped_steps_per_epoch == 10
