"""The stand-in for an optimizer: forwarding, counting, closures."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.optim import BaseManager
from sparseml.pytorch.optim import RecipeManagerStepWrapper, ScheduledModifierManager
from sparseml.pytorch.sparsification import (
    ConstantPruningModifier,
    EpochRangeModifier,
    LearningRateFunctionModifier,
    Modifier,
    MovementPruningModifier,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


@pytest.fixture
def manager(model):
    manager = ScheduledModifierManager([EpochRangeModifier(0.0, 2.0)])
    manager.initialize(model)
    return manager


class Stepped:
    """The least that can be wrapped."""

    def __init__(self):
        self.calls = []
        self.setting = 1

    def step(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return "result"


def wrap(wrapped, manager, model, epoch=0.0, steps_per_epoch=4):
    return RecipeManagerStepWrapper(wrapped, None, model, manager, epoch, steps_per_epoch)


class TestConstruction:
    @pytest.mark.parametrize("steps", [0, -1])
    def test_steps_per_epoch(self, model, manager, steps):
        with pytest.raises(ValueError, match="steps_per_epoch must be greater than 0"):
            wrap(Stepped(), manager, model, steps_per_epoch=steps)

    def test_needs_a_step(self, model, manager):
        with pytest.raises(ValueError, match=r"method 'step'.*object has none"):
            wrap(object(), manager, model)

    @pytest.mark.parametrize("other", [None, BaseManager([]), Modifier()])
    def test_needs_a_manager(self, model, other):
        with pytest.raises(ValueError, match="must be a ScheduledModifierManager"):
            wrap(Stepped(), other, model)

    def test_properties_are_read_only(self, model, manager):
        wrapped = Stepped()
        wrapper = RecipeManagerStepWrapper(wrapped, "optimizer", model, manager, 1.3, 4)
        found = {
            name: getattr(wrapper, name) for name in dir(wrapper) if name.startswith("wrapped")
        }
        assert found == {
            "wrapped": wrapped,
            "wrapped_driver": wrapper.wrapped_driver,
            "wrapped_manager": manager,
            "wrapped_optimizer": "optimizer",
            "wrapped_module": model,
            "wrapped_steps_per_epoch": 4,
            "wrapped_epoch": 1.3,
            "wrapped_steps": 5,
        }
        for name in found:
            with pytest.raises(AttributeError, match=f"'{name}' .*read-only"):
                setattr(wrapper, name, None)


class TestForwarding:
    def test_attributes_that_the_wrapped_has_are_its_own(self, model, manager):
        wrapped = Stepped()
        wrapper = wrap(wrapped, manager, model)
        wrapper.setting = 2
        assert (wrapped.setting, wrapper.setting) == (2, 2)
        del wrapper.setting
        assert not hasattr(wrapped, "setting") and not hasattr(wrapper, "setting")
        assert not hasattr(wrapper, "_wrapped_unknown")

    def test_others_stay_here(self, model, manager):
        """What a library notes on it is not to be seen by the wrapped object, nor copied."""
        wrapped = Stepped()
        wrapper = wrap(wrapped, manager, model)
        wrapper._strategy = 3
        assert wrapper._strategy == 3 and not hasattr(wrapped, "_strategy")
        assert not hasattr(copy.deepcopy(wrapper), "_strategy")
        del wrapper._strategy
        assert not hasattr(wrapper, "_strategy")
        wrapper.step = lambda: "patched"
        assert (wrapper.step(), wrapped.step()) == ("patched", "result")

    def test_step_gives_arguments_and_result_through(self, model, manager):
        wrapped = Stepped()
        wrapper = wrap(wrapped, manager, model)
        assert wrapper.step(1, two=2) == "result"
        assert wrapped.calls == [((1,), {"two": 2})]

    def test_copies(self, model, manager):
        wrapper = wrap(Stepped(), manager, model)
        twin = copy.deepcopy(wrapper)
        twin.step()
        assert (twin.wrapped_steps, wrapper.wrapped_steps) == (1, 0)
        assert wrapper.wrapped.calls == []
        state = twin.wrapped_manager.state_dict()
        again = copy.deepcopy(twin)
        again.step()
        again.wrapped_manager.load_state_dict(state)
        assert (again.wrapped_steps, twin.wrapped_steps) == (1, 1)

    def test_masks_of_another_model_are_refused(self, model):
        manager = ScheduledModifierManager([ConstantPruningModifier("__ALL_PRUNABLE__")])
        for wrapped in (model, torch.nn.parallel.DataParallel(model)):
            manager.modify(wrapped, torch.optim.SGD(model.parameters(), 0.1), 2)
        other = torch.nn.Linear(3, 2)
        with pytest.raises(RuntimeError, match="in another model than this Linear: take a new"):
            manager.modify(other, torch.optim.SGD(other.parameters(), 0.1), 2)
        manager.finalize(model)
        wrapper = manager.modify(other, torch.optim.SGD(other.parameters(), 0.1), 2)
        wrapper.step()
        manager.finalize(other)
        with pytest.raises(RuntimeError, match="ConstantPruningModifier would not start again"):
            manager.modify(model, torch.optim.SGD(model.parameters(), 0.1), 2)


class TestCounting:
    @given(epoch=st.floats(0, 50), spe=st.integers(1, 100), steps=st.integers(1, 8))
    @settings(deadline=None, max_examples=50)
    def test_epochs_follow_the_steps(self, epoch, spe, steps):
        model = torch.nn.Linear(1, 1)
        manager = ScheduledModifierManager([EpochRangeModifier(0.0, 2.0)])
        manager.initialize(model)
        wrapper = wrap(Stepped(), manager, model, epoch, spe)
        assert wrapper.wrapped_epoch == epoch
        first = round(epoch * spe)
        for step in range(first, first + steps):
            assert wrapper.wrapped_steps == step
            wrapper.step()
            after = step + 1
            assert wrapper.wrapped_epoch == after // spe + (after % spe) / spe

    def test_modifiers_see_the_epoch_before_the_step(self, model, manager, monkeypatch):
        seen = []
        monkeypatch.setattr(manager, "update", lambda *args: seen.append(args[2:]))
        after = manager.optimizer_post_step
        monkeypatch.setattr(
            manager, "optimizer_post_step", lambda *args: seen.append(args[2:]) or after(*args)
        )
        wrapper = wrap(Stepped(), manager, model, 1.3)
        wrapper.step()
        wrapper.step()
        assert seen == [(1.3, 4), (1.3, 4), (1.5, 4), (1.5, 4)]

    def test_emulated_step_does_all_but_the_step(self, model, manager):
        wrapper = wrap(Stepped(), manager, model)
        for _ in range(9):
            wrapper.emulated_step()
        assert wrapper.wrapped.calls == []
        assert wrapper.wrapped_steps == 9
        assert manager.modifiers[0].started and manager.modifiers[0].ended

    def test_disabled_manager(self, model, manager):
        manager.enabled = False
        wrapper = wrap(Stepped(), manager, model)
        assert wrapper.step() == "result"
        wrapper.emulated_step()
        assert wrapper.wrapped_steps == 0 and not manager.modifiers[0].started

    def test_not_after_finalize(self, model, manager):
        wrapper = wrap(Stepped(), manager, model)
        manager.finalize(model)
        for call in (wrapper.step, wrapper.emulated_step):
            with pytest.raises(RuntimeError, match="finalize"):
                call()
        assert wrapper.wrapped.calls == []

    def test_loss_update(self, model, manager):
        loss = torch.ones(())
        assert wrap(Stepped(), manager, model).loss_update(loss) is loss

    def test_gradient_accumulation_counts_steps(self, model):
        modifier = LearningRateFunctionModifier("linear", 1.0, 0.0, 0.0, 2.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        wrapper = ScheduledModifierManager([modifier]).modify(model, optimizer, 2)
        seen = []
        for batch in range(12):
            (wrapper.loss_update(model(torch.ones(1, 3)).sum()) / 3).backward()
            if batch % 3 == 2:
                wrapper.step()
                wrapper.zero_grad()
                seen.append(optimizer.param_groups[0]["lr"])
        assert seen == [1.0, 0.75, 0.5, 0.25] and wrapper.wrapped_epoch == 2.0


def train(optimizer_class, closure, keyword=False, steps=6):
    """Weights after a training with movement pruning, which needs the gradients of the step."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = optimizer_class(model.parameters(), lr=0.1)
    modifiers = [
        MovementPruningModifier(0.05, 0.75, 1.0, 2.0, 0.5, ["weight"]),
        LearningRateFunctionModifier("linear", 0.2, 0.1, 0.0, 3.0),
    ]
    wrapper = ScheduledModifierManager(modifiers).modify(model, optimizer, 2)
    data = torch.randn(steps, 5, 4, generator=torch.Generator().manual_seed(1))
    losses = []
    for batch in data:

        def compute(batch=batch):
            wrapper.zero_grad()
            loss = wrapper.loss_update(model(batch).pow(2).sum())
            loss.backward()
            return loss

        if not closure:
            losses.append(compute())
            wrapper.step()
        else:
            losses.append(wrapper.step(closure=compute) if keyword else wrapper.step(compute))
    return model.weight.detach(), torch.stack(losses).detach()


class TestClosures:
    @pytest.mark.parametrize("keyword", [True, False])
    @pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam])
    def test_same_as_without(self, optimizer_class, keyword):
        plain, by_closure = train(optimizer_class, False), train(optimizer_class, True, keyword)
        assert torch.equal(plain[0], by_closure[0]) and torch.equal(plain[1], by_closure[1])
        assert (plain[0] == 0).sum() == 9

    def test_modifiers_run_once_however_often_it_is_called(self, model, manager, monkeypatch):
        calls = []
        monkeypatch.setattr(manager, "update", lambda *args: calls.append("update"))

        class Twice(Stepped):
            def step(self, closure):
                return closure() + closure()

        def closure():
            calls.append("closure")
            return 1

        assert wrap(Twice(), manager, model).step(closure) == 2
        assert calls == ["closure", "update", "closure"]

    def test_modifiers_run_even_if_it_is_not_called(self, model, manager):
        wrapper = wrap(Stepped(), manager, model)
        wrapper.step(lambda: 1)
        assert manager.modifiers[0].started and wrapper.wrapped_steps == 1

    def test_works_with_lbfgs(self):
        model = torch.nn.Linear(2, 1)
        manager = ScheduledModifierManager([EpochRangeModifier(0.0, 1.0)])
        wrapper = manager.modify(model, torch.optim.LBFGS(model.parameters()), 2)

        def closure():
            wrapper.zero_grad()
            loss = (model(torch.eye(2)) - 1).pow(2).sum()
            loss.backward()
            return loss

        first = wrapper.step(closure)
        assert wrapper.step(closure) < first
        assert wrapper.wrapped_epoch == 1.0
