"""The base classes: life cycle, schedule, logging and state."""

from __future__ import annotations

import copy
import gc
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.optim import BaseModifier, BaseScheduled, BaseUpdate
from sparseml.optim.schedule import Schedule
from sparseml.pytorch.sparsification import (
    PYTORCH_FRAMEWORK,
    Modifier,
    ModifierProp,
    PyTorchModifierYAML,
    ScheduledModifier,
    ScheduledUpdateModifier,
    sparsification_info,
)
from sparseml.pytorch.utils import LambdaLogger, LoggerManager
from sparseml.sparsification.types import SparsificationTypes


class Recorder(ScheduledUpdateModifier):
    """Notes when it is called, and whether it was starting or ending then."""

    def __init__(self, start_epoch=-1.0, end_epoch=-1.0, update_frequency=-1.0):
        super().__init__(
            start_epoch=start_epoch,
            end_epoch=end_epoch,
            end_comparator=-1,
            update_frequency=update_frequency,
        )
        self.updates = []
        self.logged = []

    def update(self, module, optimizer, epoch, steps_per_epoch):
        super().update(module, optimizer, epoch, steps_per_epoch)
        starting = self.start_pending(epoch, steps_per_epoch)
        self.updates.append((epoch, starting, self.end_pending(epoch, steps_per_epoch)))

    def log_update(self, module, optimizer, epoch, steps_per_epoch):
        super().log_update(module, optimizer, epoch, steps_per_epoch)
        self.logged.append(epoch)


class Structured(Modifier):
    @ModifierProp(serializable=False)
    def sparsification_types(self):
        return [SparsificationTypes.structured]


@pytest.fixture
def model():
    return torch.nn.Linear(2, 2)


def entries(**kwargs):
    """A logger and the list that it fills."""
    found = []
    logger = LambdaLogger(
        lambda tag, value, values, step, wall_time, level: found.append((tag, value, step))
    )
    return LoggerManager([logger], log_python=False, **kwargs), found


def drive(modifier, model, steps_per_epoch, steps, first=0):
    for step in range(first, first + steps):
        epoch = step // steps_per_epoch + (step % steps_per_epoch) / steps_per_epoch
        if modifier.update_ready(epoch, steps_per_epoch):
            modifier.scheduled_update(model, None, epoch, steps_per_epoch)
            modifier.scheduled_log_update(model, None, epoch, steps_per_epoch)
    return [epoch for epoch, _, _ in modifier.updates]


def test_framework_and_base_classes():
    assert PYTORCH_FRAMEWORK == "pytorch"
    assert issubclass(Modifier, BaseModifier)
    assert issubclass(ScheduledModifier, (Modifier, BaseScheduled))
    assert issubclass(ScheduledUpdateModifier, (ScheduledModifier, BaseUpdate))
    assert sparsification_info().modifiers == []


def test_the_chain_of_base_classes_is_short():
    chain = [c.__name__ for c in ScheduledUpdateModifier.__mro__ if "sparseml" in c.__module__]
    assert chain == [
        "ScheduledUpdateModifier", "ScheduledModifier", "Modifier", "BaseScheduled", "BaseUpdate",
        "BaseModifier", "BaseObject",
    ]  # fmt: skip


def test_without_a_schedule_no_update_is_due(model):
    modifier = Modifier()
    modifier.initialize(model)
    assert modifier.update_ready(0.0, 4) is False


def test_registration_makes_a_tag():
    @PyTorchModifierYAML()
    class RegisteredInThisTestModifier(Modifier):
        pass

    loaded = Modifier.load_obj("!RegisteredInThisTestModifier\n")
    assert type(loaded) is RegisteredInThisTestModifier
    assert isinstance(
        Modifier.load_list("modifiers:\n  - !RegisteredInThisTestModifier\n")[0], type(loaded)
    )


class TestLifeCycle:
    CALLS = {
        "finalize": (),
        "update": (None, None, 0.0, 1),
        "log_update": (None, None, 0.0, 1),
        "loss_update": (torch.zeros(()), None, None, 0.0, 1),
        "optimizer_pre_step": (None, None, 0.0, 1),
        "optimizer_post_step": (None, None, 0.0, 1),
    }

    @pytest.mark.parametrize("name", CALLS)
    def test_needs_initialize_first(self, name):
        with pytest.raises(RuntimeError, match=f"Modifier.{name} was called before initialize"):
            getattr(Modifier(), name)(*self.CALLS[name])

    @pytest.mark.parametrize("name", [name for name in CALLS if name != "finalize"])
    def test_needs_to_be_enabled(self, name, model):
        modifier = Modifier()
        modifier.initialize(model)
        modifier.enabled = False
        with pytest.raises(RuntimeError, match="disabled"):
            getattr(modifier, name)(*self.CALLS[name])
        modifier.enabled = True
        getattr(modifier, name)(*self.CALLS[name])

    def test_initialize_and_finalize(self, model):
        modifier = Modifier()
        assert not modifier.initialized and not modifier.loggers_initialized
        assert modifier.loggers == []
        modifier.initialize(model, 3.0, unknown_extra=1)
        modifier.initialize(model)
        assert modifier.initialized and modifier.loggers_initialized
        assert isinstance(modifier.loggers, LoggerManager)
        modifier.finalize(model, unknown_extra=1)
        assert not modifier.initialized and not modifier.loggers_initialized
        with pytest.raises(RuntimeError):
            modifier.finalize()

    def test_finalize_can_keep_the_loggers(self, model):
        loggers, _ = entries()
        modifier = Modifier()
        modifier.initialize(model, loggers=loggers)
        modifier.finalize(model, reset_loggers=False)
        assert modifier.loggers is loggers and modifier.loggers_initialized

    def test_log_update_needs_loggers(self, model):
        modifier = Modifier()
        modifier.initialize(model)
        modifier._loggers_initialized = False
        with pytest.raises(RuntimeError, match="initialize_loggers"):
            modifier.log_update(model, None, 0.0, 1)

    def test_list_of_loggers_is_wrapped(self, model):
        logger = LambdaLogger(lambda **_: None)
        modifier = Modifier()
        modifier.initialize_loggers([logger])
        assert logger in list(modifier.loggers) and modifier.loggers_initialized
        assert not modifier.initialized

    def test_loss_passes_through(self, model):
        modifier, loss = Modifier(), torch.ones(())
        modifier.initialize(model)
        assert modifier.loss_update(loss, model, None, 0.0, 1, student_outputs=1) is loss

    def test_apply_initialises_and_finalises(self, model, monkeypatch):
        calls = []
        monkeypatch.setattr(
            Modifier, "finalize", lambda self, *args, **kwargs: calls.append((args, kwargs))
        )
        modifier = Modifier()
        modifier.apply(model, extra=1)
        assert modifier.initialized and calls == [((model,), {"extra": 1})]
        modifier.apply(model, finalize=False)
        assert len(calls) == 1
        modifier._initialized = False

    @pytest.mark.parametrize("modifier,acts", [(Modifier(), False), (Structured(), True)])
    def test_apply_structure_is_for_structured_modifiers(self, model, modifier, acts):
        modifier.apply_structure(model)
        assert modifier.initialized == acts
        modifier.apply_structure(model, finalize=True)
        assert not modifier.initialized

    def test_deleting_finalises_and_never_raises(self, model, caplog):
        calls = []

        class Noisy(Modifier):
            def finalize(self, *args, **kwargs):
                calls.append(self.initialized)
                raise KeyError("must not get out")

        with caplog.at_level("DEBUG", logger="sparseml"):
            modifier = Noisy()
            modifier.initialize(model)
            del modifier
            Noisy()
            gc.collect()
        assert calls == [True]
        assert "finalize failed while deleting Noisy" in caplog.text

    def test_fields_are_frozen_while_initialised(self, model):
        modifier = Recorder(0.0, 1.0)
        modifier.end_epoch = 2.0
        modifier.initialize(model)
        with pytest.raises(AttributeError):
            modifier.end_epoch = 3.0
        with pytest.raises(AttributeError):
            modifier.started = True
        assert modifier.end_epoch == 2.0


class TestSchedule:
    METHODS = ["start_pending", "end_pending", "update_ready"]

    @pytest.mark.parametrize("name", METHODS)
    def test_needs_initialize_first(self, name):
        with pytest.raises(RuntimeError, match=f"{name} was called before initialize"):
            getattr(Recorder(), name)(0.0, 1)
        with pytest.raises(RuntimeError):
            Recorder().scheduled_update(None, None, 0.0, 1)

    @pytest.mark.parametrize("name", METHODS)
    def test_false_when_disabled(self, name, model):
        modifier = Recorder(0.0, 0.0)
        modifier.enabled = False
        assert Recorder.update_ready(modifier, 0.0, 1) is False  # even when not initialised
        modifier.initialize(model)
        assert getattr(modifier, name)(0.0, 1) is False

    @pytest.mark.parametrize(
        "start,epoch,due",
        [(-1.0, 0.0, True), (0.0, 0.0, True), (2.0, 1.75, False), (2.0, 2.0, True), (2.0, 9, True)],
    )
    def test_start_pending(self, model, start, epoch, due):
        modifier = Recorder(start)
        modifier.initialize(model)
        assert modifier.start_pending(epoch, 4) is due
        modifier._started = True
        assert modifier.start_pending(epoch, 4) is False
        modifier._started, modifier._ended = False, True
        assert modifier.start_pending(epoch, 4) is False

    @pytest.mark.parametrize(
        "end,epoch,due", [(-1.0, 1e9, False), (2.0, 1.75, False), (2.0, 2.0, True), (2.0, 9, True)]
    )
    def test_end_pending_honours_started_set_from_outside(self, model, end, epoch, due):
        modifier = Recorder(0.0, end)
        modifier.initialize(model)
        assert modifier.end_pending(epoch, 4) is False
        modifier._started = True
        assert modifier.end_pending(epoch, 4) is due
        modifier._ended = True
        assert modifier.end_pending(epoch, 4) is False

    def test_flags_are_set_after_the_update(self, model):
        modifier = Recorder(0.5, 1.0)
        modifier.initialize(model)
        drive(modifier, model, 4, 12)
        assert modifier.updates == [(0.5, True, False), (0.75, False, False), (1.0, False, True)]
        assert modifier.started and modifier.ended

    def test_start_and_end_at_once_is_one_update(self, model):
        modifier = Recorder(0.0, 0.0)
        modifier.initialize(model)
        drive(modifier, model, 4, 4)
        assert modifier.updates == [(0.0, True, False)]
        assert modifier.started and modifier.ended

    def test_scheduled_update_must_be_due(self, model):
        modifier = Recorder(2.0)
        modifier.initialize(model)
        with pytest.raises(RuntimeError, match="where no update is due"):
            modifier.scheduled_update(model, None, 1.0, 1)

    @pytest.mark.parametrize("name", ["update", "log_update"])
    def test_must_not_be_called_directly(self, model, name):
        modifier = Recorder()
        modifier.initialize(model)
        with pytest.raises(RuntimeError, match=f"call scheduled_{name}"):
            getattr(modifier, name)(model, None, 0.0, 1)
        modifier.scheduled_update(model, None, 0.0, 1)
        with pytest.raises(RuntimeError, match=f"call scheduled_{name}"):
            getattr(modifier, name)(model, None, 0.0, 1)

    def test_error_inside_an_update_leaves_no_trace(self, model):
        class Failing(Recorder):
            def update(self, *args):
                super().update(*args)
                raise KeyError("no")

        modifier = Failing(0.0)
        modifier.initialize(model)
        with pytest.raises(KeyError):
            modifier.scheduled_update(model, None, 0.0, 1)
        assert not modifier.started and not modifier._schedule_called

    @pytest.mark.parametrize(
        "frequency,expected",
        [
            (-1.0, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
            (0.25, [0.0, 0.3, 0.6, 0.9]),  # counts from the last update
            (0.5, [0.0, 0.5]),
            (2.0, [0.0]),
        ],
    )
    def test_update_frequency(self, model, frequency, expected):
        modifier = Recorder(0.0, -1.0, frequency)
        modifier.initialize(model)
        assert drive(modifier, model, 10, 10) == pytest.approx(expected)

    def test_interval_needs_a_last_update(self, model):
        modifier = Recorder(0.0, -1.0, 0.5)
        modifier.initialize(model)
        modifier._started = True
        assert not modifier.update_ready(5.0, 10)
        modifier._last_update_epoch = 4.5
        assert modifier.update_ready(5.0, 10)
        assert not modifier.update_ready(4.9, 10)

    @given(
        spe=st.integers(1, 17),
        start=st.integers(0, 20),
        length=st.integers(0, 40),
        every=st.integers(1, 9),
    )
    @settings(deadline=None, max_examples=50)
    def test_schedule_in_steps_never_drifts(self, spe, start, length, every):
        model = torch.nn.Linear(1, 1)
        modifier = Recorder(start_step=start, end_step=start + length, update_steps=every)
        modifier.initialize(model, steps_per_epoch=spe)
        found = [round(epoch * spe) for epoch in drive(modifier, model, spe, start + length + 5)]
        between = list(range(start, start + length, every))
        # a schedule that starts and ends at once is over with its first update
        assert found == sorted({*between, start + length})

    def test_schedule_is_a_value_that_follows_the_fields(self):
        modifier = Recorder(1.0, 3.0, 0.5)
        assert modifier.schedule == Schedule(1.0, 3.0, 0.5)
        modifier.end_epoch = 4.0
        assert modifier.schedule == Schedule(1.0, 4.0, 0.5)
        modifier.advance_epochs(2.0)
        assert modifier.schedule == Schedule(3.0, 6.0, 0.5)
        steps = Recorder(start_step=3, end_step=8, update_steps=2)
        assert (steps.schedule.start_step, steps.schedule.end_step) == (3, 8)
        steps.resolve_steps(4)
        assert steps.schedule == Schedule(0.75, 2.0, 0.5, update_steps=2)
        assert ScheduledModifier(start_epoch=1.0, end_epoch=2.0).schedule == Schedule(1.0, 2.0)

    def test_steps_must_be_known_to_start(self, model):
        modifier = Recorder(start_step=3)
        modifier.initialize(model)
        with pytest.raises(RuntimeError, match="steps_per_epoch"):
            modifier.update_ready(0.0, 4)
        assert modifier.start_pending(math.inf, 1)  # one shot
        modifier.resolve_steps(4)
        assert not modifier.update_ready(0.5, 4)
        assert modifier.update_ready(0.75, 4)


class TestLogging:
    def test_scheduled_log_update_waits_for_the_loggers(self, model):
        loggers, _ = entries(log_frequency=0.5)
        modifier = Recorder(0.0)
        modifier.initialize(model, loggers=loggers)
        drive(modifier, model, 4, 8)
        assert modifier.logged == [0.0, 0.5, 1.0, 1.5]
        assert modifier._last_log_epoch == 1.5

    def test_no_loggers_no_logging(self, model):
        modifier = Recorder(0.0)
        modifier.initialize(model, loggers=LoggerManager(log_python=False))
        drive(modifier, model, 4, 4)
        assert modifier.logged == []

    def test_scheduled_log_update_checks(self, model):
        with pytest.raises(RuntimeError, match="initialize"):
            Recorder().scheduled_log_update(model, None, 0.0, 1)
        modifier = Recorder()
        modifier.initialize(model)
        modifier.enabled = False
        with pytest.raises(RuntimeError, match="disabled"):
            modifier.scheduled_log_update(model, None, 0.0, 1)
        modifier.enabled = True
        modifier._loggers_initialized = False
        with pytest.raises(RuntimeError, match="loggers"):
            modifier.scheduled_log_update(model, None, 0.0, 1)

    @pytest.mark.parametrize(
        "epoch,spe,step", [(1.5, 4, 6), (1.6, -1, 2), (1.6, None, 2), (None, 4, None)]
    )
    def test_scalars(self, model, epoch, spe, step):
        loggers, found = entries()
        modifier = Recorder()
        modifier.initialize(model, loggers=loggers)
        modifier.log_scalar(1.0, epoch=epoch, steps_per_epoch=spe)
        modifier.log_scalar(2.0, tag="own", epoch=math.inf, steps_per_epoch=spe)
        modifier.log_named_scalars([("a", 3.0), ("b", 4.0)], epoch=epoch, steps_per_epoch=spe)
        assert found == [
            ("Recorder", 1.0, step),
            ("own", 2.0, None),
            ("Recorder/a", 3.0, step),
            ("Recorder/b", 4.0, step),
        ]

    def test_other_loggers_can_be_given(self, model):
        own, found_own = entries()
        other, found_other = entries()
        modifier = Recorder()
        modifier.log_scalar(0.0)  # before there are any loggers
        modifier.initialize(model, loggers=own)
        modifier.log_scalar(1.0, loggers=other)
        assert found_own == [] and found_other == [("Recorder", 1.0, None)]

    def test_strings_are_debug_by_default(self, model):
        calls = []

        class Strings(LambdaLogger):
            def log_string(self, tag, string, step=None, wall_time=None, level=None):
                calls.append((tag, string, step, level))

        modifier = Recorder()
        modifier.initialize(model, loggers=[Strings(lambda **_: None)])
        modifier.log_string("hello", epoch=1.0, steps_per_epoch=4)
        modifier.log_string("hello", tag="own", level=40)
        assert calls == [("Recorder", "hello", 4, 10), ("own", "hello", None, 40)]

    def test_log_call_wraps_a_method(self, model):
        calls = []

        class Called(Recorder):
            @ScheduledModifier.log_call
            def act(self, value, epoch, steps_per_epoch):
                """Acts."""
                return value + 1

            def log_string(self, string, **kwargs):
                calls.append(string)

        modifier = Called()
        modifier.initialize(model, loggers=LoggerManager(log_python=False))
        assert modifier.act(1, 0.0, 4) == 2 and calls == []
        modifier.initialize(model, loggers=entries()[0])
        assert modifier.act(1, epoch=0.0, steps_per_epoch=4) == 2
        assert "act" in calls[0] and "1" in calls[0]
        assert "returned 2" in calls[1]
        assert Called.act.__doc__ == "Acts."


class TestState:
    def test_no_state_of_their_own(self):
        modifier = Recorder()
        assert modifier.state_dict() == {}
        modifier.load_state_dict({})
        modifier.load_state_dict({"a": 1}, strict=False)
        with pytest.raises(IndexError, match=r"Recorder keeps no state, found the keys a"):
            modifier.load_state_dict({"a": 1})

    @given(stop=st.integers(0, 12))
    @settings(deadline=None, max_examples=13)
    def test_progress_goes_on_where_it_was(self, stop):
        model = torch.nn.Linear(1, 1)
        whole, first, second = (Recorder(0.5, 2.5, 0.75) for _ in range(3))
        for modifier in (whole, first, second):
            modifier.initialize(model)
        drive(whole, model, 4, 13)
        drive(first, model, 4, stop)
        second.load_progress_state(first.progress_state())
        drive(second, model, 4, 13 - stop, first=stop)
        assert first.updates + second.updates == whole.updates
        assert first.logged + second.logged == whole.logged
        assert second.progress_state() == whole.progress_state()

    def test_progress_needs_initialize(self):
        with pytest.raises(RuntimeError, match="initialize"):
            Recorder().load_progress_state(Recorder().progress_state())

    def test_copies_are_independent(self, model):
        modifier = Recorder(0.0, 1.0)
        modifier.initialize(model)
        twin = copy.deepcopy(modifier)
        drive(twin, model, 2, 2)
        assert twin.started and not modifier.started
