"""A step that did not happen does not count, whoever has left it out."""

from __future__ import annotations

import functools

import pytest
import torch

from sparseml.pytorch.optim import ScheduledModifierManager, StepDriver
from sparseml.pytorch.sparsification import MagnitudePruningModifier, ScheduledModifier
from sparseml.pytorch.utils.optimizers import stepping_optimizers

PRUNING = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 0.5}


class Noting(ScheduledModifier):
    """Notes the epochs of the steps it takes part in, and whether gradients can be had."""

    def __init__(self):
        super().__init__()
        self.seen, self.differentiable = [], []

    def optimizer_pre_step(self, module, optimizer, epoch, steps_per_epoch):
        super().optimizer_pre_step(module, optimizer, epoch, steps_per_epoch)
        self.seen.append(epoch)
        self.differentiable.append(torch.is_grad_enabled())


def build(**kwargs):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    inner = torch.optim.SGD(model.parameters(), **({"lr": 0.1} | kwargs))
    pruning = MagnitudePruningModifier(0.25, 0.75, params=["weight"], **PRUNING)
    return model, inner, ScheduledModifierManager([pruning, Noting()])


def backward(model):
    model(torch.ones(2, 4)).pow(2).sum().backward()


class Accumulating(torch.optim.Optimizer):
    """Steps every fourth time; an optimizer with hooks of its own."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.inner, self.calls = inner, 0

    def step(self, closure=None):
        self.calls += 1
        if self.calls % 4 == 0:
            self.inner.step(closure)


class Holder:
    """No optimizer at all, but holds one or several."""

    def __init__(self, *inner):
        self.inner = list(inner)
        self.skips = False

    @torch.no_grad()
    def step(self):
        for optimizer in () if self.skips else self.inner:
            optimizer.step()


@pytest.mark.parametrize("wrapped_by", ["modify", "wrap_optim"])
def test_an_optimizer_that_leaves_steps_out(wrapped_by):
    model, inner, manager = build()
    outer = Accumulating(inner)
    if wrapped_by == "modify":
        wrapper = manager.modify(model, outer, 2)
    else:
        wrapper = manager.modify(model, inner, 2, wrap_optim=outer)
    for _ in range(10):
        backward(model)
        wrapper.step()
    assert manager.modifiers[-1].seen == [0.0, 0.5] and wrapper.wrapped_steps == 2
    assert inner._optimizer_step_pre_hooks == {}


def test_inside_of_an_optimizer_that_leaves_steps_out():
    model, inner, manager = build()
    wrapper = manager.modify(model, inner, 2)
    outer = Accumulating(wrapper)
    for _ in range(10):
        outer.step()
    assert wrapper.wrapped_steps == 2


def test_an_object_that_holds_several_optimizers():
    model, _, manager = build()
    parts = [torch.optim.SGD([param], lr=0.1) for param in model.parameters()]
    holder = Holder(*parts)
    holder.inner.append(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))
    wrapper = manager.modify(model, parts[0], 2, wrap_optim=holder)
    holder.inner.reverse()
    assert wrapper.wrapped_driver._stepping == parts[:1]
    backward(model)
    wrapper.step()
    holder.skips = True
    wrapper.step()
    noting = manager.modifiers[-1]
    assert noting.seen == [0.0] and wrapper.wrapped_steps == 1
    assert noting.differentiable == [True]  # whatever is around it


def test_masks_are_exact_after_slow_weights():
    """Lookahead moves the weights again after the step of the optimizer that it holds."""
    optimizers = pytest.importorskip("timm.optim")
    model, inner, manager = build(momentum=0.9)
    outer = optimizers.Lookahead(inner, k=2)
    assert stepping_optimizers(outer) == [inner]
    wrapper = manager.modify(model, outer, 2)
    for _ in range(6):
        backward(model)
        wrapper.step()
    assert int((model.weight == 0).sum()) == 12 and wrapper.wrapped_steps == 6


@pytest.mark.parametrize(
    ("kind", "momentum"), [(torch.optim.Adam, {}), (torch.optim.SGD, {"momentum": 0.9})]
)
def test_the_state_inside_forgets_what_is_pruned(kind, momentum):
    """Also where an optimizer has no state of its own, and keeps slow weights for itself."""
    optimizers = pytest.importorskip("timm.optim")
    model, _, manager = build()
    inner = kind(
        model.parameters(), lr=0.1, **({} if kind is torch.optim.Adam else {"momentum": 0.9})
    )
    outer = optimizers.Lookahead(inner, k=1)
    assert not outer.state
    wrapper = manager.modify(model, outer, 4)
    for _ in range(6):
        backward(model)
        wrapper.step()
    pruned = model.weight == 0
    tensors = [v for v in inner.state[model.weight].values() if v.shape == pruned.shape]
    assert int(pruned.sum()) == 12 and len(tensors) > 1
    assert not any(bool(value[pruned].any()) for value in tensors)
    outer.sync_lookahead()  # as timm's scripts do after each epoch
    assert torch.equal(model.weight == 0, pruned)


def test_a_foreign_optimizer_inside_is_not_asked():
    model, inner, manager = build()
    inner.other = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    wrapper = manager.modify(model, inner, 2)
    wrapper.step()
    assert stepping_optimizers(inner) == [inner] and wrapper.wrapped_steps == 1


def test_an_object_that_refers_to_itself():
    _, inner, _ = build()
    inner.itself = [inner]
    assert stepping_optimizers(inner) == [inner]


@pytest.mark.parametrize("decorate", [functools.wraps, lambda _: lambda function: function])
def test_a_step_that_was_patched(decorate):
    """With or without the marks of the step that it calls."""
    model, inner, manager = build()
    calls, step = [], inner.step

    @decorate(step)
    def patched(*args):
        calls.append(1)
        return step(*args)

    inner.step = patched
    wrapper = manager.modify(model, inner, 2)
    for _ in range(3):
        backward(model)
        wrapper.step()
    assert len(calls) == wrapper.wrapped_steps == 3


def test_an_error_in_the_step_leaves_nothing_behind():
    model, inner, manager = build()
    wrapper = manager.modify(model, inner, 2)

    def fail(*_):
        raise RuntimeError("not now")

    handle = inner.register_step_post_hook(fail)
    with pytest.raises(RuntimeError, match="not now"):
        wrapper.step()
    assert inner._optimizer_step_pre_hooks == {} and wrapper.wrapped_steps == 0
    handle.remove()
    wrapper.step()
    assert wrapper.wrapped_steps == 1


class TestDriver:
    def driver(self, optimizer_of=lambda inner: inner, **kwargs):
        model, inner, manager = build(**kwargs)
        manager.initialize(model)
        optimizer = optimizer_of(inner)
        return model, inner, optimizer, StepDriver(model, optimizer, manager, 2)

    def test_it_is_told_by_the_optimizer(self):
        model, inner, _, driver = self.driver()
        for number in range(5):
            backward(model)
            driver.before_step()
            if number % 2:
                inner.step()
            driver.after_step()
        assert driver.position.steps == driver.manager.position.steps == 2
        assert inner._optimizer_step_pre_hooks == {}

    def test_a_call_without_the_other_is_no_step(self):
        *_, driver = self.driver()
        driver.after_step()
        assert driver.position.steps == 0

    def test_the_loop_knows_better(self):
        *_, inner, driver = self.driver()
        driver.before_step()
        inner.step()
        driver.after_step(skipped=True)
        driver.before_step()
        driver.after_step(skipped=False)
        assert driver.position.steps == 1

    def test_optimizers_that_leave_steps_out(self):
        model, _, optimizer, driver = self.driver(Accumulating)
        for _ in range(8):
            backward(model)
            driver.before_step()
            optimizer.step()
            driver.after_step()
        assert driver.position.steps == 2

    @pytest.mark.parametrize("fused", [True, False], ids=["fused", ""])
    def test_gradient_scaler(self, fused):
        model, inner, _, driver = self.driver(fused=fused)
        scaler, taken = torch.amp.GradScaler("cpu", init_scale=64.0), []
        for factor in (1.0, torch.inf, 1.0):
            inner.zero_grad()
            scaler.scale(model(torch.ones(2, 4)).pow(2).sum() * factor).backward()
            scaler.unscale_(inner)
            driver.before_step()
            scaler.step(inner)
            scaler.update()
            driver.after_step()
            taken.append(driver.position.steps)
        assert taken == [1, 1, 2]
