"""Driving a recipe from a loop that steps its own optimizer."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.optim import BaseManager
from sparseml.pytorch.optim import Position, ScheduledModifierManager, StepDriver
from sparseml.pytorch.sparsification import (
    EpochRangeModifier,
    LearningRateFunctionModifier,
    MagnitudePruningModifier,
    Modifier,
    MovementPruningModifier,
    ScheduledModifier,
    TopKASTPruningModifier,
    TrainableParamsModifier,
)

PRUNING = {"start_epoch": 0.5, "end_epoch": 2.0, "update_frequency": 0.5}


def modifiers():
    return [
        MovementPruningModifier(0.05, 0.75, params=["weight"], **PRUNING),
        LearningRateFunctionModifier("linear", 0.2, 0.1, 0.0, 3.0),
    ]


def build():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    manager = ScheduledModifierManager(modifiers())
    return model, torch.optim.Adam(model.parameters(), lr=0.1), manager


def batches(steps=7):
    return torch.randn(steps, 5, 4, generator=torch.Generator().manual_seed(1))


def driven(model, optimizer, driver, data, skipped=()):
    """Train; optimizer steps whose number is in ``skipped`` do not happen."""
    for number, batch in enumerate(data):
        optimizer.zero_grad()
        driver.loss_update(model(batch).pow(2).sum()).backward()
        driver.before_step()
        if number not in skipped:
            optimizer.step()
        driver.after_step(skipped=number in skipped)


def by_wrapper(data):
    model, optimizer, manager = build()
    wrapper = manager.modify(model, optimizer, 2)
    for batch in data:
        wrapper.zero_grad()
        wrapper.loss_update(model(batch).pow(2).sum()).backward()
        wrapper.step()
    return model, manager


def by_driver(data, skipped=()):
    model, optimizer, manager = build()
    manager.initialize(model)
    driver = StepDriver(model, optimizer, manager, 2)
    driven(model, optimizer, driver, data, skipped)
    return model, manager


class TestConstruction:
    @pytest.mark.parametrize("steps", [0, -1])
    def test_steps_per_epoch(self, steps):
        model, optimizer, manager = build()
        with pytest.raises(ValueError, match="steps_per_epoch must be greater than 0"):
            StepDriver(model, optimizer, manager, steps)

    @pytest.mark.parametrize("epoch", [math.inf, math.nan])
    def test_epoch(self, epoch):
        model, optimizer, manager = build()
        with pytest.raises(ValueError, match="must start at a finite epoch"):
            StepDriver(model, optimizer, manager, 4, epoch)

    @pytest.mark.parametrize("other", [None, BaseManager([]), Modifier()])
    def test_needs_a_manager(self, other):
        model, optimizer, _ = build()
        with pytest.raises(ValueError, match="must be a ScheduledModifierManager"):
            StepDriver(model, optimizer, other, 4)

    def test_starts_where_the_manager_was_initialised(self):
        model, optimizer, manager = build()
        assert StepDriver(model, optimizer, manager, 4).position == (0, 0.0, 4)
        manager.initialize(model, epoch=2.5)
        assert StepDriver(model, optimizer, manager, 4).position == (10, 2.5, 4)
        assert StepDriver(model, optimizer, manager, 4, epoch=1.3).position == (5, 1.3, 4)

    def test_schedules_in_steps_become_known(self):
        model, optimizer, _ = build()
        modifier = TrainableParamsModifier(["bias"], False, start_step=3)
        manager = ScheduledModifierManager([modifier])
        manager.initialize(model)
        driver = StepDriver(model, optimizer, manager, 2)
        for _ in range(4):
            assert model.bias.requires_grad
            driver.before_step()
            optimizer.step()
            driver.after_step()
        assert not model.bias.requires_grad

    def test_the_manager_must_be_initialised(self):
        model, optimizer, manager = build()
        driver = StepDriver(model, optimizer, manager, 2)
        for call in (driver.before_step, driver.after_step):
            with pytest.raises(RuntimeError, match="initialize"):
                call()
        assert driver.position.steps == 0


class TestDriving:
    def test_same_as_a_wrapped_optimizer(self):
        (one, manager), (other, _) = by_driver(batches()), by_wrapper(batches())
        assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
        assert int((one.weight == 0).sum()) == 9 and manager.modifiers[0].ended

    @given(epoch=st.floats(0, 50), spe=st.integers(1, 100), steps=st.integers(1, 8))
    @settings(deadline=None, max_examples=50)
    def test_epochs_follow_the_steps(self, epoch, spe, steps):
        model = torch.nn.Linear(1, 1)
        manager = ScheduledModifierManager([EpochRangeModifier(0.0, 2.0)])
        manager.initialize(model)
        driver = StepDriver(model, None, manager, spe, epoch)
        first = round(epoch * spe)
        assert driver.position == (first, epoch, spe)
        for step in range(first + 1, first + steps + 1):
            driver.before_step()
            driver.after_step()
            assert driver.position == (step, step // spe + (step % spe) / spe, spe)
            assert manager.position == driver.position

    def test_a_disabled_manager_does_and_counts_nothing(self):
        model, optimizer, manager = build()
        manager.initialize(model)
        manager.enabled = False
        driver = StepDriver(model, optimizer, manager, 2)
        driver.before_step()
        driver.after_step()
        assert driver.position.steps == 0 and not manager.modifiers[0].started

    def test_extra_arguments_reach_the_loss(self):
        class Asking(ScheduledModifier):
            def loss_update(self, loss, *args, **kwargs):
                return loss + kwargs["student_outputs"]

        model, optimizer, _ = build()
        manager = ScheduledModifierManager([Asking()])
        manager.initialize(model)
        driver = StepDriver(model, optimizer, manager, 2)
        assert driver.loss_update(torch.ones(()), student_outputs=2) == 3


class TestSkippedSteps:
    @pytest.mark.parametrize("skipped", [{0}, {2}, {3, 4}, {6}])
    def test_do_not_count(self, skipped):
        model, manager = by_driver(batches(7 + len(skipped)), skipped)
        assert manager.position == (7, 3.5, 2)
        assert manager.modifiers[0].ended and int((model.weight == 0).sum()) == 9

    def test_change_nothing_between_two_updates(self):
        def train(data, skipped=()):
            model, optimizer, _ = build()
            manager = ScheduledModifierManager(
                [MagnitudePruningModifier(0.05, 0.75, params=["weight"], **PRUNING), modifiers()[1]]
            )
            manager.initialize(model)
            driven(model, optimizer, StepDriver(model, optimizer, manager, 4), data, skipped)
            return model, manager.position

        data = batches(12)
        again = data[[0, 1, 2, 3, 3, 3, *range(4, 12)]]
        (one, position), (other, same) = train(data), train(again, skipped={3, 4})
        assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
        assert position == same == (12, 3.0, 4)

    def test_leave_no_masked_weight_behind(self):
        """Masked weights that train on come back for the step, and must go again without it."""
        model, optimizer, _ = build()
        modifier = TopKASTPruningModifier(0.5, 0.25, 0.0, 5.0, 1.0, ["weight"])
        manager = ScheduledModifierManager([modifier])
        manager.initialize(model)
        driver = StepDriver(model, optimizer, manager, 2)
        driven(model, optimizer, driver, batches(4), skipped={2})
        before = int((model.weight == 0).sum())
        model(batches()[0]).sum().backward()
        driver.before_step()
        driver.after_step(skipped=True)
        assert int((model.weight == 0).sum()) == before == 6
        assert driver.position.steps == 3 == manager.state_dict()["__progress__"]["steps"]

    def test_the_position_outlives_the_driver(self):
        _, manager = by_driver(batches(), skipped={6})
        assert manager.position == (6, 3.0, 2)
        assert manager.state_dict()["__progress__"]["steps"] == 6


class TestResuming:
    @pytest.mark.parametrize("stop", [0, 1, 3, 5, 7])
    @pytest.mark.parametrize("loaded_first", [True, False])
    def test_goes_on_as_if_it_had_not_stopped(self, stop, loaded_first):
        whole, _ = by_driver(batches())
        data = batches()
        model, optimizer, manager = build()
        manager.initialize(model)
        driven(model, optimizer, StepDriver(model, optimizer, manager, 2), data[:stop])
        states = model.state_dict(), optimizer.state_dict(), manager.state_dict()
        model, optimizer, manager = build()
        model.load_state_dict(states[0])
        optimizer.load_state_dict(states[1])
        manager.initialize(model)
        if loaded_first:
            manager.load_state_dict(states[2])
        driver = StepDriver(model, optimizer, manager, 2)
        if not loaded_first:
            manager.load_state_dict(states[2])
        assert driver.position.steps == stop
        driven(model, optimizer, driver, data[stop:])
        assert torch.equal(model.weight, whole.weight)

    def test_other_steps_per_epoch_keep_the_epoch(self):
        model, optimizer, manager = build()
        driver = StepDriver(model, optimizer, manager, 8)
        driver.resume(Position(6, 1.5, 4))
        assert driver.position == (12, 1.5, 8)
        driver.resume(Position(7, 0.875, 8))
        assert driver.position == (7, 0.875, 8)


def stepped(*, end=3.0, steps=2, wrapped=False, together=True):
    """Take the first step of a recipe that prunes nothing; return the error that it ends with."""
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager = ScheduledModifierManager([EpochRangeModifier(0.0, end)])
    if wrapped:
        optimizer = manager.modify(model, optimizer, steps)
    else:
        manager.initialize(model)
        driver = StepDriver(model, optimizer, manager, steps)
    return first_step(optimizer if wrapped else driver, model, together)


def driver_of(model, end):
    manager = ScheduledModifierManager([EpochRangeModifier(0.0, end)])
    manager.initialize(model)
    return StepDriver(model, torch.optim.SGD(model.parameters(), lr=0.1), manager, 2)


def first_step(stepping, model, together=True):
    trained = torch.nn.parallel.DistributedDataParallel(model) if together else model
    trained(torch.ones(2, 4)).sum().backward()
    try:
        stepping.before_step() if isinstance(stepping, StepDriver) else stepping.step()
    except RuntimeError as error:
        return str(error)
    return ""


def test_processes_that_drive_other_recipes_are_told(in_two):
    """At the first step; one that drives none is not waited for."""

    def train(rank):
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
        told = "steps_per_epoch differs between processes: 2 in that of rank 0, 3 in that of rank 1"
        for wrapped in (False, True):
            assert not stepped(wrapped=wrapped)
            assert stepped(steps=2 + rank, wrapped=wrapped) == told
            found = stepped(end=2.0 + rank, wrapped=wrapped)
            assert found.startswith("the recipe differs between processes: 'end_epoch: 2.0' in")
        dist.barrier()
        assert rank or not stepped(end=7.0, together=False)  # and nobody hangs
        made = [] if rank else [driver_of(torch.nn.Linear(4, 3), 9.0)]  # is never used
        model = torch.nn.Linear(4, 3)
        main = driver_of(model, 3.0)
        if rank == 0:
            alone = torch.nn.Linear(4, 3)
            assert not first_step(driver_of(alone, 8.0), alone, together=False)
        assert not first_step(main, model) and len(made) == 1 - rank
        # of two that are made at once the second may come first
        models = [torch.nn.Linear(4, 3) for _ in range(2)]
        both = [driver_of(one, 4.0 + number) for number, one in enumerate(models)]
        assert [first_step(both[n], models[n]) for n in (1, 0)] == ["", ""]
        dist.barrier()  # with the first process goes the store
        dist.destroy_process_group()

    for ended in in_two(train, 120.0):
        assert ended.status == 0, ended.error
