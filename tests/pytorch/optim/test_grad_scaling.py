"""Automatic mixed precision: true gradients for modifiers, skipped steps that count for nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch.amp import GradScaler

from sparseml.pytorch.optim import ScheduledModifierManager, ScheduledOptimizer
from sparseml.pytorch.sparsification import LearningRateFunctionModifier, ScheduledModifier

OVERFLOWS = {2, 3, 6}
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


class Gradients(ScheduledModifier):
    """Notes the gradient and the epoch of every step it takes part in."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def identifier(self, extra=""):
        return "Gradients"

    def optimizer_pre_step(self, module, optimizer, epoch, steps_per_epoch):
        super().optimizer_pre_step(module, optimizer, epoch, steps_per_epoch)
        self.seen.append((epoch, module.weight.grad.clone()))


def build(fused=False, device="cpu", **kwargs):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=fused or None)
    manager = ScheduledModifierManager(
        [LearningRateFunctionModifier("linear", 0.5, 0.1, 0.0, 2.0), Gradients()]
    )
    scaler = GradScaler(device, init_scale=1024.0, growth_interval=2, **kwargs)
    return model, optimizer, manager, scaler


def loop(way, fused=False, unscale=False, device="cpu", steps=9, **kwargs):
    """Train with overflows on some batches; what modifiers saw, the weights, the skipped steps."""
    model, optimizer, manager, scaler = build(fused, device, **kwargs)
    if way == "wrapped scaler":
        scaler = manager.modify(model, optimizer, 4, wrap_optim=scaler)
    elif way == "wrapped optimizer":
        optimizer = manager.modify(model, optimizer, 4)
    else:
        optimizer = ScheduledOptimizer(optimizer, model, manager, 4)
    data = torch.randn(steps, 5, 3, generator=torch.Generator().manual_seed(1)).to(device)
    epochs = []
    for step, batch in enumerate(data):
        optimizer.zero_grad()
        loss = model(batch).pow(2).sum()
        if step in OVERFLOWS:
            loss = loss * math.inf
        scaler.scale(loss).backward()
        if unscale:
            scaler.unscale_(optimizer)
        before = model.weight.detach().clone()
        scaler.step(optimizer)
        assert torch.equal(before, model.weight) == (step in OVERFLOWS)
        scaler.update()
        counting = scaler if way == "wrapped scaler" else optimizer
        epochs.append(counting.wrapped_epoch)
    return manager.modifiers[-1].seen, model.weight.detach(), epochs


def reference(fused=False, device="cpu", steps=9):
    """The same training without a scaler, overflows left out by hand."""
    model, optimizer, manager, _ = build(fused, device)
    wrapper = manager.modify(model, optimizer, 4)
    data = torch.randn(steps, 5, 3, generator=torch.Generator().manual_seed(1)).to(device)
    for step, batch in enumerate(data):
        if step not in OVERFLOWS:
            wrapper.zero_grad()
            model(batch).pow(2).sum().backward()
            wrapper.step()
    return manager.modifiers[-1].seen, model.weight.detach()


@pytest.mark.parametrize("unscale", [True, False], ids=["unscaled by the loop", ""])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", ""])
@pytest.mark.parametrize("way", ["wrapped scaler", "wrapped optimizer", "ScheduledOptimizer"])
@pytest.mark.parametrize("device", DEVICES)
def test_skipped_steps_do_not_exist(way, fused, unscale, device):
    seen, weight, epochs = loop(way, fused, unscale, device)
    expected_seen, expected_weight = reference(fused, device)
    assert [epoch for epoch, _ in seen] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    for (_, found), (_, expected) in zip(seen, expected_seen, strict=True):
        assert torch.allclose(found, expected, rtol=1e-5)
    assert torch.allclose(weight, expected_weight, rtol=1e-4, atol=1e-6)
    assert epochs == [0.25, 0.5, 0.5, 0.5, 0.75, 1.0, 1.0, 1.25, 1.5]


@pytest.mark.parametrize("way", ["wrapped scaler", "wrapped optimizer"])
def test_disabled_scaler_changes_nothing(way, monkeypatch):
    monkeypatch.setattr(f"{__name__}.OVERFLOWS", set())
    seen, weight, _ = loop(way, enabled=False)
    expected_seen, expected_weight = reference()
    assert torch.equal(weight, expected_weight) and len(seen) == len(expected_seen) == 9


def test_scaler_backs_off_as_usual():
    model, optimizer, manager, scaler = build()
    wrapper = manager.modify(model, optimizer, 4, wrap_optim=scaler)
    (wrapper.scale(model(torch.ones(1, 3)).sum()) * math.inf).backward()
    assert wrapper.step(optimizer) is None
    wrapper.update()
    assert scaler.get_scale() == wrapper.get_scale() == 512.0


def test_one_scaler_for_two_optimizers():
    model, optimizer, manager, scaler = build()
    other = torch.nn.Linear(3, 2)
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    wrapper = manager.modify(model, optimizer, 4, wrap_optim=scaler)
    for _ in range(3):
        wrapper.scale(model(torch.ones(1, 3)).sum() + other(torch.ones(1, 3)).sum()).backward()
        wrapper.step(other_optimizer)
        wrapper.step(optimizer=optimizer)
        wrapper.update()
    assert wrapper.wrapped_steps == 3 and len(manager.modifiers[-1].seen) == 3


def test_optimizer_inside_another_object_is_recognised():
    class Accelerated:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

    model, optimizer, manager, scaler = build()
    wrapper = manager.modify(model, optimizer, 4, wrap_optim=scaler)
    wrapper.scale(model(torch.ones(1, 3)).sum()).backward()
    wrapper.step(Accelerated(optimizer))
    assert wrapper.wrapped_steps == 1


def test_closures_are_refused_by_the_scaler():
    model, optimizer, manager, scaler = build()
    wrapper = manager.modify(model, optimizer, 4, wrap_optim=scaler)
    wrapper.scale(model(torch.ones(1, 3)).sum()).backward()
    with pytest.raises(RuntimeError, match="Closure"):
        wrapper.step(optimizer, closure=lambda: None)
    assert wrapper.wrapped_steps == 0 and manager.modifiers[-1].seen == []


def test_step_before_scale_is_an_error():
    model, optimizer, manager, scaler = build()
    wrapper = manager.modify(model, optimizer, 4, wrap_optim=scaler)
    with pytest.raises(AssertionError, match="scale"):
        wrapper.step(optimizer)


def test_gradient_scale_of_ones_own_stays():
    """Fused optimizers divide by a ``grad_scale`` that a loop has set for good."""
    model, optimizer, manager, _ = build(fused=True)
    wrapper = manager.modify(model, optimizer, 4)
    optimizer.grad_scale = torch.tensor(4.0)
    for step in range(2):
        wrapper.zero_grad()
        (model(torch.ones(1, 3)).sum() * 4).backward()
        wrapper.step()
        assert torch.equal(manager.modifiers[-1].seen[step][1], torch.ones(2, 3))
        assert optimizer.grad_scale == 4.0
