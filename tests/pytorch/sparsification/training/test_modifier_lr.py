"""Learning rate modifiers: the rates at every step, checks, logging, resuming."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.sparsification import (
    LearningRateFunctionModifier,
    LearningRateModifier,
    Modifier,
    SetLearningRateModifier,
)
from sparseml.sparsification.types import SparsificationTypes

STEP = {"gamma": 0.5, "step_size": 2}
RESTARTS = {"lr_min": 0.01, "cycle_epochs": 2}


def with_kwargs(lr_class, lr_kwargs, start=0.0, end=-1.0):
    return LearningRateModifier(lr_class, lr_kwargs, 0.1, start, end)


def function(name, init, final, start, end, cycle=1.0):
    return LearningRateFunctionModifier(name, init, final, start, end, cycle)


class TestRates:
    """The rate after each of the first steps, at four steps per epoch, from 0.7."""

    @pytest.mark.parametrize(
        "modifier,expected",
        [
            (
                function("linear", 0.1, 0.0, 1, 3),
                [0.7] * 4 + [0.1, 0.0875, 0.075, 0.0625, 0.05, 0.0375, 0.025, 0.0125] + [0.0] * 4,
            ),
            (
                function("cosine", 0.1, 0.0, 0, 3),
                [0.1, 0.0983, 0.0933, 0.08536, 0.075, 0.06294, 0.05, 0.03706, 0.025],
            ),
            (
                function("cyclic_linear", 0.1, 0.05, 0, 3, 1),
                [0.1, 0.08333, 0.06667, 0.05] * 3 + [0.1] * 4,
            ),
            (
                function("cyclic_linear", 0.1, 0.05, 0, 3, 2),
                [0.1, 0.09286, 0.08571, 0.07857, 0.07143, 0.06429, 0.05714, 0.05]
                + [0.1, 0.08333, 0.06667, 0.05]
                + [0.1] * 4,
            ),
            (with_kwargs("ExponentialLR", {"gamma": 0.5}), [0.1] * 4 + [0.05] * 4 + [0.025] * 4),
            (
                with_kwargs("ExponentialLR", {"gamma": 0.5}, 1, 3),
                [0.7] * 4 + [0.1] * 4 + [0.05] * 8,
            ),
            (with_kwargs("StepLR", STEP), [0.1] * 8 + [0.05] * 8),
            (
                with_kwargs("MultiStepLR", {"gamma": 0.5, "milestones": [1, 2]}),
                [0.1] * 4 + [0.05] * 4 + [0.025] * 4,
            ),
            (
                with_kwargs("CosineAnnealingWarmRestarts", RESTARTS),
                [0.1, 0.09657, 0.08682, 0.07222, 0.055, 0.03778, 0.02318, 0.01343, 0.1],
            ),
            (SetLearningRateModifier(0.2, start_epoch=1.0), [0.7] * 4 + [0.2] * 4),
            (SetLearningRateModifier(0.2), [0.2] * 4),
        ],
        ids=lambda value: f"{type(value).__name__}" if isinstance(value, Modifier) else "",
    )
    def test_check_numbers(self, run, modifier, expected):
        assert run.drive(modifier, len(expected) / 4) == pytest.approx(expected, abs=1e-5)

    def test_cosine_up(self, run):
        found = run.drive(function("cosine", 0.0, 0.1, 0, 2), 3)
        down = [0.1 - rate for rate in type(run)().drive(function("cosine", 0.1, 0.0, 0, 2), 3)]
        assert found == pytest.approx(down) and found[-1] == 0.1

    @pytest.mark.parametrize("func", ["linear", "cosine"])
    def test_ends_exactly_even_between_steps(self, run, func):
        assert run.drive(function(func, 0.1, 0.03, 0, 1.9), 3)[8:] == [0.03] * 4

    def test_immediate_start_counts_from_epoch_zero(self, run):
        expected = type(run)().drive(function("linear", 0.1, 0.0, 0, 2), 3)
        assert run.drive(function("linear", 0.1, 0.0, -1, 2), 3) == expected

    def test_milestones_are_epochs_of_the_run(self, run):
        modifier = with_kwargs("MultiStepLR", {"gamma": 0.5, "milestones": [3, 2]}, 1.0)
        assert run.drive(modifier, 4) == [0.7] * 4 + [0.1] * 4 + [0.05] * 4 + [0.025] * 4

    def test_joining_late_gives_what_a_whole_run_had(self, run, new_run):
        for epoch in (1.5, 3.0, 7.25):
            make = lambda: with_kwargs("ExponentialLR", {"gamma": 0.5}, 0.0, 3.0)  # noqa: E731
            joined, whole = make(), make()
            joined.initialize(run.model)
            run.step(joined, round(epoch * 4), 4)
            expected = new_run().drive(whole, epoch + 0.25)[-1]
            assert run.optimizer.param_groups[0]["lr"] == expected

    def test_only_the_groups_named(self, run):
        run.drive(SetLearningRateModifier(0.2, param_groups=[1]), 1)
        assert [group["lr"] for group in run.optimizer.param_groups] == [0.7, 0.2]
        modifier = LearningRateFunctionModifier("linear", 0.1, 0.0, 0, 2, param_groups=[0])
        run.drive(modifier, 1)
        assert [group["lr"] for group in run.optimizer.param_groups] == [0.0625, 0.2]

    def test_rate_in_a_tensor_is_changed_in_place(self, run):
        rate = torch.tensor(0.7)
        run.optimizer.param_groups[0]["lr"] = rate
        run.drive(SetLearningRateModifier(0.25), 1)
        assert rate == 0.25 and run.optimizer.param_groups[0]["lr"] is rate

    @given(spe=st.integers(1, 9), start=st.integers(0, 9), length=st.integers(1, 30))
    @settings(deadline=None, max_examples=30)
    def test_steps_are_exact(self, new_run, spe, start, length):
        modifier = LearningRateFunctionModifier(
            "linear", 0.5, 0.25, start_step=start, end_step=start + length
        )
        run = new_run()
        modifier.initialize(run.model, steps_per_epoch=spe)
        found = run.drive(modifier, (start + length + 2) / spe, spe)
        assert found[:start] == [0.7] * start
        assert found[start] == 0.5
        assert found[start + length :] == [0.25] * 2


class TestFields:
    def test_types(self):
        for modifier in (
            SetLearningRateModifier(0.1),
            function("linear", 0.1, 0, 0, 1),
            with_kwargs("StepLR", STEP),
        ):
            assert modifier.sparsification_types == [SparsificationTypes.learning_rate]

    def test_numbers_may_be_text(self):
        assert SetLearningRateModifier("1e-3").learning_rate == 1e-3
        modifier = LearningRateFunctionModifier("linear", "1e-1", "1e-4", 0, 1, cycle_epochs="2")
        assert (modifier.init_lr, modifier.final_lr, modifier.cycle_epochs) == (0.1, 1e-4, 2.0)
        modifier = LearningRateModifier("StepLR", {"gamma": "1e-1", "step_size": 2}, "1e-2", 0)
        assert modifier.init_lr == 0.01
        assert modifier.lr_kwargs == {"gamma": 0.1, "step_size": 2}

    @pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan"), "half"])
    def test_rate_out_of_range(self, rate):
        with pytest.raises(ValueError, match="learning_rate must be"):
            SetLearningRateModifier(rate)
        with pytest.raises(ValueError, match="init_lr must be"):
            LearningRateModifier("StepLR", STEP, rate, 0)
        modifier = SetLearningRateModifier(0.1)
        with pytest.raises(ValueError, match="learning_rate must be"):
            modifier.learning_rate = rate

    @pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan"), "half"])
    def test_rate_of_a_function_may_be_zero(self, rate):
        assert function("linear", 0, 0.0, 0, 1).init_lr == 0.0
        for name, rates in (("init_lr", (rate, 0.1)), ("final_lr", (0.1, rate))):
            with pytest.raises(ValueError, match=f"{name} must be"):
                function("linear", *rates, 0, 1)

    @pytest.mark.parametrize("rate", [None, True, [0.1]])
    def test_rate_of_the_wrong_type(self, rate):
        with pytest.raises(TypeError, match="learning_rate must be a number"):
            SetLearningRateModifier(rate)

    @pytest.mark.parametrize(
        "groups,error", [([], ValueError), ([-1], ValueError), (["a"], ValueError)]
    )
    def test_groups_must_be_indices(self, groups, error):
        for make in (
            lambda: SetLearningRateModifier(0.1, param_groups=groups),
            lambda: LearningRateFunctionModifier("linear", 0.1, 0, 0, 1, param_groups=groups),
        ):
            with pytest.raises(error, match="param_groups must list indices"):
                make()

    def test_groups_must_exist(self, run):
        for modifier in (
            SetLearningRateModifier(0.1, param_groups=[2]),
            LearningRateFunctionModifier("linear", 0.1, 0, 0, 1, param_groups=[0, 2]),
        ):
            with pytest.raises(IndexError, match="names group 2, but the optimizer has 2"):
                run.drive(modifier, 1)

    def test_set_rate_has_no_end(self):
        assert SetLearningRateModifier(0.1, end_epoch=5.0).end_epoch == -1.0
        with pytest.raises(ValueError, match="end_epoch of SetLearningRateModifier must stay"):
            SetLearningRateModifier(0.1).end_epoch = 2.0

    def test_every_step_is_an_update(self):
        modifier = LearningRateFunctionModifier("linear", 0.1, 0, 0, 1, update_frequency=0.5)
        assert modifier.update_frequency == -1.0
        assert (
            LearningRateModifier("StepLR", STEP, 0.1, 0, update_frequency=3).update_frequency == -1
        )

    def test_function_must_be_known_and_must_end(self):
        with pytest.raises(ValueError, match=r"'linear', 'cosine', 'cyclic_linear', .*cosine"):
            function("cosin", 0.1, 0, 0, 1)
        with pytest.raises(ValueError, match="greater than start_epoch"):
            function("linear", 0.1, 0, 1, 1)
        with pytest.raises(ValueError, match="cycle_epochs must be greater than 0"):
            function("cyclic_linear", 0.1, 0, 0, 1, 0)

    @pytest.mark.parametrize(
        "lr_class,lr_kwargs,match",
        [
            ("StepLr", STEP, "did you mean 'StepLR'"),
            ("StepLR", {"gamma": 0.1}, "must have 'step_size'"),
            ("StepLR", {"step_size": 1}, "must have 'gamma'"),
            ("StepLR", {**STEP, "gama": 1}, "did you mean 'gamma'"),
            ("StepLR", None, "must be a mapping"),
            ("StepLR", {"gamma": 0.1, "step_size": 0}, "step_size must be greater than 0"),
            ("MultiStepLR", {"gamma": 0.1}, "must have 'milestones'"),
            ("MultiStepLR", {"gamma": 0.1, "milestones": []}, "list of epochs"),
            ("MultiStepLR", {"gamma": 0.1, "milestones": 3}, "list of epochs"),
            ("MultiStepLR", {"gamma": 0.1, "milestones": [1, 5]}, "before end_epoch 5.0, found 5"),
            ("MultiStepLR", {"gamma": 0.1, "milestones": [0, 2]}, "after start_epoch 0.0"),
            ("CosineAnnealingWarmRestarts", {"lr_min": 0.1}, "must have 'cycle_epochs'"),
            ("CosineAnnealingWarmRestarts", {"cycle_epochs": 1}, "must have 'lr_min'"),
        ],
    )
    def test_schedule_must_be_complete(self, lr_class, lr_kwargs, match):
        with pytest.raises(ValueError, match=match):
            LearningRateModifier(lr_class, lr_kwargs, 0.1, 0.0, 5.0)

    def test_exponential_is_stepwise(self):
        modifier = with_kwargs("ExponentialLR", {"gamma": 0.5})
        assert modifier.lr_class == "StepLR"
        assert modifier.lr_kwargs == {"gamma": 0.5, "step_size": 1.0}
        assert "lr_kwargs: {'gamma': 0.5, 'step_size': 1.0}" in str(modifier)

    def test_schedule_can_be_exchanged(self):
        modifier = with_kwargs("StepLR", STEP, 0, 5)
        modifier.lr_kwargs = {"gamma": 0.1, "step_size": 3}
        assert modifier.lr_kwargs["step_size"] == 3
        with pytest.raises(ValueError, match="milestones"):
            modifier.lr_class = "MultiStepLR"
        modifier.init_lr = "1e-2"
        assert modifier.init_lr == 0.01

    @pytest.mark.parametrize(
        "lr_class,lr_kwargs,expected",
        [
            ("StepLR", STEP, {"gamma": 0.5, "step_size": 20}),
            ("StepLR", {"gamma": 0.5, "step_size": 0.01}, {"gamma": 0.5, "step_size": 1}),
            (
                "MultiStepLR",
                {"gamma": 0.5, "milestones": [2, 3.25]},
                {"gamma": 0.5, "milestones": [10, 22]},
            ),
            ("CosineAnnealingWarmRestarts", RESTARTS, {"lr_min": 0.01, "cycle_epochs": 20}),
        ],
    )
    def test_corrected_lr_info_is_in_steps(self, lr_class, lr_kwargs, expected):
        modifier = with_kwargs(lr_class, lr_kwargs, 1.0, 9.0)
        assert modifier.corrected_lr_info(10, 1.0, 9.0) == (lr_class, expected)
        assert modifier.lr_kwargs == lr_kwargs

    def test_milestones_move_with_the_schedule(self):
        modifier = with_kwargs("MultiStepLR", {"gamma": 0.5, "milestones": [2, 3]}, 1.0, 4.0)
        modifier.advance_epochs(10.0)
        assert modifier.lr_kwargs["milestones"] == [12.0, 13.0]
        assert (modifier.start_epoch, modifier.end_epoch) == (11.0, 14.0)
        modifier.advance_epochs(None)
        assert modifier.lr_kwargs["milestones"] == [12.0, 13.0]


class TestLogging:
    def test_set_rate_is_logged_when_set(self, run):
        modifier = SetLearningRateModifier(0.2, start_epoch=1.0, param_groups=[1])
        assert modifier.applied_learning_rate == -1.0
        run.drive(modifier, 2)
        assert modifier.applied_learning_rate == 0.2
        assert run.logged == [
            ("SetLearningRateModifier/ParamGroup0", 0.7, 4),
            ("SetLearningRateModifier/ParamGroup1", 0.2, 4),
        ]

    @pytest.mark.parametrize("constant,steps", [(False, [0, 8]), (True, list(range(12)))])
    def test_schedule_is_logged_on_change(self, run, constant, steps):
        modifier = LearningRateModifier("StepLR", STEP, 0.1, 0, constant_logging=constant)
        run.drive(modifier, 3)
        tag = "LearningRateModifier/ParamGroup0"
        assert [step for name, _, step in run.logged if name == tag] == steps

    def test_function_is_logged_at_every_update(self, run):
        run.drive(function("cyclic_linear", 0.1, 0.1, 0, 2), 2)
        tag = "LearningRateFunctionModifier/ParamGroup1"
        assert [step for name, _, step in run.logged if name == tag] == list(range(8))


@pytest.mark.parametrize(
    "make",
    [
        lambda: SetLearningRateModifier(0.2, start_epoch=1.0),
        lambda: function("cyclic_linear", 0.1, 0.05, 0.5, 2.5, 1.5),
        lambda: with_kwargs("StepLR", STEP, 0.5, 2.75),
        lambda: with_kwargs("CosineAnnealingWarmRestarts", RESTARTS, 1.0),
    ],
)
def test_resumes_after_any_step(require_exact_resume, make):
    require_exact_resume(make)
