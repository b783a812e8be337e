"""What ``modify`` returns for an optimizer is an optimizer, to torch and to everybody else."""

from __future__ import annotations

import copy
import io
import pickle
import weakref

import pytest
import torch
from torch.optim import lr_scheduler, swa_utils

from sparseml.pytorch.optim import RecipeManagerStepWrapper, ScheduledModifierManager
from sparseml.pytorch.sparsification import EpochRangeModifier, MagnitudePruningModifier

PRUNING = {"start_epoch": 0.0, "end_epoch": 1.5, "update_frequency": 0.5}


def manager():
    return ScheduledModifierManager(
        [MagnitudePruningModifier(0.25, 0.75, params=["weight"], **PRUNING)]
    )


def build(optimizer_class=torch.optim.SGD, **kwargs):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    inner = optimizer_class(model.parameters(), **({"lr": 0.1} | kwargs))
    return model, inner, manager().modify(model, inner, 4)


@pytest.fixture
def built():
    return build(momentum=0.9)


def train(model, optimizer, steps=1, after=lambda: None):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).pow(2).sum().backward()
        optimizer.step()
        after()


def test_it_is_both(built):
    _, _, wrapper = built
    assert isinstance(wrapper, torch.optim.Optimizer)
    assert isinstance(wrapper, RecipeManagerStepWrapper)


def test_a_gradient_scaler_is_wrapped_plainly(built):
    model, inner, _ = built
    wrapper = manager().modify(model, inner, 4, wrap_optim=torch.amp.GradScaler("cpu"))
    assert type(wrapper) is RecipeManagerStepWrapper
    assert not isinstance(wrapper, torch.optim.Optimizer)


def test_groups_state_and_methods_are_the_wrapped_ones(built):
    model, inner, wrapper = built
    assert wrapper.param_groups is inner.param_groups and wrapper.state is inner.state
    assert wrapper.defaults is inner.defaults and repr(wrapper) == repr(inner)
    train(model, wrapper)
    saved = copy.deepcopy(wrapper.state_dict())
    momentum = saved["state"][0]["momentum_buffer"]
    assert momentum.equal(inner.state[model.weight]["momentum_buffer"])
    train(model, wrapper)
    wrapper.load_state_dict(saved)
    assert wrapper.state is inner.state
    assert inner.state[model.weight]["momentum_buffer"].equal(momentum)
    wrapper.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    assert len(inner.param_groups) == 2
    wrapper.param_groups = inner.param_groups[:1]
    assert len(inner.param_groups) == 1
    wrapper.zero_grad()
    assert model.weight.grad is None


def test_methods_that_the_wrapped_class_overrides_are_taken_from_it(built):
    class Own(torch.optim.SGD):
        def state_dict(self):
            return {"own": True}

        def train(self):
            return "training"

    wrapper = build(Own)[2]
    assert wrapper.state_dict() == {"own": True} and wrapper.train() == "training"


def test_hooks_are_run_once(built):
    model, inner, wrapper = built
    calls = []
    hooks = {
        "register_step_pre_hook": lambda *_: calls.append("before"),
        "register_step_post_hook": lambda *_: calls.append("after"),
        "register_state_dict_pre_hook": lambda *_: calls.append("saving"),
        "register_state_dict_post_hook": lambda *_: calls.append("saved"),
        "register_load_state_dict_pre_hook": lambda *_: calls.append("loading"),
        "register_load_state_dict_post_hook": lambda *_: calls.append("loaded"),
    }
    handles = [getattr(wrapper, name)(hook) for name, hook in hooks.items()]
    train(model, wrapper)
    wrapper.load_state_dict(wrapper.state_dict())
    assert calls == ["before", "after", "saving", "saved", "loading", "loaded"]
    train(model, inner)
    assert calls[6:] == ["before", "after"]
    for handle in handles:
        handle.remove()
    train(model, wrapper)
    assert len(calls) == 8
    assert not inner._optimizer_step_pre_hooks and not inner._optimizer_step_post_hooks


def test_modifiers_see_what_the_loops_own_hooks_made_of_the_gradients(built, monkeypatch):
    model, _, wrapper = built
    seen = []
    monkeypatch.setattr(
        wrapper.wrapped_manager, "update", lambda module, *_: seen.append(module.weight.grad.max())
    )
    wrapper.register_step_pre_hook(lambda *_: model.zero_grad(set_to_none=False))
    train(model, wrapper)
    assert seen == [0.0]


def test_a_step_past_the_wrapper_is_not_ours(built):
    model, inner, wrapper = built
    train(model, inner)
    assert wrapper.wrapped_steps == 0 and int((model.weight == 0).sum()) == 0


@pytest.mark.parametrize("by", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])  # noqa: S301
def test_copies_go_their_own_way(built, by):
    model, inner, wrapper = built
    train(model, wrapper, 2)
    lr_scheduler.StepLR(wrapper, 1)  # patches ``step``
    twin = by(wrapper)
    assert type(twin) is type(wrapper) and twin.wrapped is not inner
    other = twin.wrapped_module
    assert other is not model
    train(other, twin, 5)
    train(model, wrapper, 5)
    assert twin.wrapped_steps == wrapper.wrapped_steps == 7
    assert torch.equal(other.weight, model.weight)


def test_it_is_saved_with_torch(built):
    model, _, wrapper = built
    train(model, wrapper, 3)
    file = io.BytesIO()
    torch.save(wrapper.state_dict(), file)
    file.seek(0)
    wrapper.load_state_dict(torch.load(file, weights_only=True))


def test_it_can_be_referred_to_weakly_and_is_a_key(built):
    *_, wrapper = built
    assert weakref.ref(wrapper)() is wrapper and {wrapper: 1}[wrapper] == 1


SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.5**step),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=8),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.5)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.5)]
    ),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.01),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
}


@pytest.mark.parametrize("on", ["wrapper", "wrapped"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_learning_rate_schedulers(name, on):
    """Rates are those of the plain optimizer; no warning says that the step comes too late."""

    def rates(model, optimizer, scheduler):
        found = []

        def after():
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
            found.append(optimizer.param_groups[0]["lr"])

        train(model, optimizer, 6, after)
        return found

    model, inner, wrapper = build(momentum=0.9)
    scheduler = SCHEDULERS[name](wrapper if on == "wrapper" else inner)
    plain = torch.nn.Linear(4, 4)
    alone = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    assert rates(model, wrapper, scheduler) == rates(plain, alone, SCHEDULERS[name](alone))
    assert wrapper.wrapped_steps == 6 and int((model.weight == 0).sum()) == 12


def test_a_scheduler_that_steps_first_is_warned_of(built):
    *_, wrapper = built
    scheduler = lr_scheduler.StepLR(wrapper, 2)
    with pytest.warns(UserWarning, match=r"lr_scheduler\.step\(\)` before"):
        scheduler.step()


def test_a_scheduler_saved_and_loaded(built):
    model, _, wrapper = built
    scheduler = lr_scheduler.StepLR(wrapper, 2)
    train(model, wrapper, 3, scheduler.step)
    other = lr_scheduler.StepLR(build()[2], 2)
    other.load_state_dict(scheduler.state_dict())
    assert other.last_epoch == 3


def test_several_recipes_on_one_optimizer(built):
    model, inner, wrapper = built
    other = ScheduledModifierManager([EpochRangeModifier(0.0, 2.0)])
    outer = other.modify(model, wrapper, 4)
    train(model, outer, 3)
    assert outer.wrapped_steps == wrapper.wrapped_steps == 3
    assert inner._optimizer_step_pre_hooks == {}
