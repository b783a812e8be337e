"""Learning rates in cycles: warm-up, decay, factors between cycles, as CAP's recipes have them."""

from __future__ import annotations

import logging
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.optim import RecipeValueError
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import LearningRateFunctionModifier, Modifier

KEYS = {"cycle_mul": 1.0, "warmup": 0.0, "decay_rate": 0.9, "decay_epochs": 1.0}
RECIPE = """
training_modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 300}
  - !LearningRateFunctionModifier
      start_epoch: 0
      end_epoch: 300
      lr_func: linear
      init_lr: 0.2
      final_lr: 0.001
      cycle_epochs: 20
      cycle_mul: 1.0
"""


def cycles(func="linear", init=0.1, final=0.01, start=0, end=3, **keys):
    return LearningRateFunctionModifier(func, init, final, start, end, **keys)


def reference(modifier, step, n):
    """The rate at a step of the schedule, from the published formulas."""
    c = modifier.cycle_epochs
    c = (modifier.end_epoch - modifier.start_epoch if c == -1 else c) * n
    a, j = step % c, step // c
    init, final = modifier.init_lr, modifier.final_lr
    periods = a / (modifier.decay_epochs * n)
    rate = {
        "linear": init - a / max(c - 1, 1) * (init - final),
        "cosine": final + 0.5 * (init - final) * (1 + math.cos(math.pi * a / c)),
        "exponential": max(init * modifier.decay_rate**periods, final),
        "step": max(init * modifier.decay_rate ** math.floor(periods), final),
    }[modifier.lr_func]
    warm = min(a / max(modifier.warmup * n, 1), 1) if modifier.warmup else 1
    return rate * warm * modifier.cycle_mul**j


class TestRates:
    """The rate after each of the first steps, at four steps per epoch."""

    @pytest.mark.parametrize(
        "modifier,expected",
        [
            (cycles(cycle_epochs=1, cycle_mul=1.0), [0.1, 0.07, 0.04, 0.01] * 3),
            (
                cycles(cycle_epochs=1, cycle_mul=0.5),
                [0.1, 0.07, 0.04, 0.01, 0.05, 0.035, 0.02, 0.005, 0.025, 0.0175, 0.01, 0.0025],
            ),
            (cycles(cycle_epochs=2, warmup=0.5), [0.0, 0.5 * (0.1 - 0.09 / 7), 0.1 - 0.18 / 7]),
            (
                cycles("cosine", 0.1, 0.0, cycle_epochs=1, cycle_mul=1),
                [0.1, 0.08535534, 0.05, 0.01464466] * 3,
            ),
            (
                cycles("exponential", 0.1, 0.03, decay_rate=0.5),
                [0.1, 0.08408964, 0.07071068, 0.05946036, 0.05, 0.04204482, 0.03535534, 0.03, 0.03],
            ),
            (
                cycles("step", 0.1, 0.03, decay_rate=0.5, decay_epochs=0.5),
                [0.1, 0.1, 0.05, 0.05, 0.03, 0.03],
            ),
            (cycles("step", 0.1, 0.0), [0.1] * 4 + [0.09] * 4 + [0.081] * 4),
            (
                cycles("step", 0.4, 0.0, cycle_epochs=2, cycle_mul=0.5, decay_rate=0.5, warmup=0.5),
                [0.0, 0.2, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2, 0.0, 0.1, 0.2, 0.2],
            ),
        ],
        ids=lambda value: value.lr_func if isinstance(value, Modifier) else "",
    )
    def test_check_numbers(self, run, modifier, expected):
        assert run.drive(modifier, len(expected) / 4) == pytest.approx(expected, abs=1e-8)

    @given(
        func=st.sampled_from(["linear", "cosine", "exponential", "step"]),
        n=st.integers(1, 7),
        cycle=st.sampled_from([-1, 1, 2, 3, 5]),
        mul=st.sampled_from([0.5, 1.0, 1.25]),
        warmup=st.sampled_from([0.0, 0.25, 0.75]),
        period=st.sampled_from([0.5, 1, 2]),
    )
    @settings(deadline=None, max_examples=60)
    def test_the_published_formulas(self, new_run, func, n, cycle, mul, warmup, period):
        modifier = cycles(
            func, end=7, cycle_epochs=cycle, cycle_mul=mul, warmup=warmup, decay_epochs=period
        )
        expected = [reference(modifier, step, n) for step in range(7 * n)]
        assert new_run().drive(modifier, 7, n) == pytest.approx(expected, abs=1e-12)

    def test_the_recipe_of_a_resnet(self, run):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        rates = run.drive(manager.learning_rate_modifiers[0], 60, 5)
        assert rates[:100] == pytest.approx([0.2 - step / 99 * 0.199 for step in range(100)])
        assert rates == pytest.approx(rates[:100] * 3)

    def test_a_last_cycle_that_is_not_whole_is_cut_off(self, run):
        rates = run.drive(cycles(end=2.5, cycle_epochs=1, cycle_mul=1.0), 2.5)
        assert rates == pytest.approx([0.1, 0.07, 0.04, 0.01] * 2 + [0.1, 0.07])

    @pytest.mark.parametrize("func", ["linear", "cosine", "exponential", "step"])
    def test_after_the_end_the_last_rate_stays(self, run, new_run, func):
        make = lambda: cycles(func, start=1, end=3, cycle_epochs=1, cycle_mul=0.5)  # noqa: E731
        rates = run.drive(make(), 5)
        assert rates[:4] == [0.7] * 4 and rates[12:] == [rates[11]] * 8
        late = new_run()
        assert late.drive(make(), 4.25, first=16) == [rates[11]]

    @pytest.mark.parametrize("n", [1, 3])
    def test_cycles_of_one_step_stay_at_the_top(self, run, n):
        rates = run.drive(cycles(cycle_epochs=1 / n, cycle_mul=1.0), 3, n)
        assert rates == [0.1] * 3 * n

    @given(n=st.integers(1, 30), start=st.integers(0, 40), cycle=st.integers(2, 9))
    @settings(deadline=None, max_examples=40)
    def test_cycles_begin_at_the_right_step(self, new_run, n, start, cycle):
        """However steps fall on epochs, no cycle begins a step too late or too early."""
        modifier = LearningRateFunctionModifier(
            "linear", 0.5, 0.25, start_step=start, end_step=start + 4 * cycle,
            cycle_epochs=cycle / n, cycle_mul=0.5,
        )  # fmt: skip
        run = new_run()
        modifier.initialize(run.model, steps_per_epoch=n)
        rates = run.drive(modifier, (start + 4 * cycle) / n, n)[start:]
        assert rates[::cycle] == [0.5, 0.25, 0.125, 0.0625]
        assert rates[cycle - 1 :: cycle] == pytest.approx([0.25, 0.125, 0.0625, 0.03125])


class TestOldRecipes:
    @pytest.mark.parametrize("func", ["linear", "cosine"])
    def test_length_of_a_cycle_alone_changes_nothing(self, run, new_run, func, caplog):
        whole = run.drive(cycles(func, cycle_epochs=1.0), 3)
        assert not caplog.records
        assert new_run().drive(cycles(func, cycle_epochs=2), 3) == whole
        assert caplog.record_tuples == [
            (
                "sparseml.pytorch.sparsification.training.modifier_lr_function",
                logging.WARNING,
                "LearningRateFunctionModifier: cycle_epochs 2 has no effect on lr_func "
                f"{func!r} alone; with cycle_mul 1.0 it begins anew every 2 epochs",
            )
        ]

    @pytest.mark.parametrize("func", ["linear", "cosine", "cyclic_linear"])
    def test_their_text_is_as_it_was(self, func):
        modifier = cycles(func)
        assert modifier.cycle_epochs == 1.0 and not modifier.in_cycles
        assert "cycle_epochs: 1.0" in str(modifier)
        for name in KEYS:
            assert getattr(modifier, name) is None and name not in str(modifier)

    def test_all_from_start_to_end(self, run, new_run):
        whole = run.drive(cycles("cosine"), 3)
        assert new_run().drive(cycles("cosine", cycle_epochs=-1), 3) == whole


class TestFields:
    @pytest.mark.parametrize("func", ["linear", "cosine", "exponential", "step"])
    @pytest.mark.parametrize("name", list(KEYS))
    def test_one_key_shows_all(self, func, name):
        modifier = cycles(func, **{name: 0.5})
        assert modifier.in_cycles and modifier.cycle_epochs == -1.0
        assert {key: getattr(modifier, key) for key in KEYS} == {**KEYS, name: 0.5}
        text = str(modifier)
        assert f"{name}: 0.5" in text and "cycle_epochs: -1.0" in text
        again = Modifier.load_obj(text)
        assert str(again) == text and again._rate(1.3, 10) == modifier._rate(1.3, 10)

    def test_numbers_may_be_text(self):
        modifier = cycles("step", cycle_mul="5e-1", warmup="1", decay_rate="1e-1", decay_epochs="2")
        assert [getattr(modifier, name) for name in KEYS] == [0.5, 1.0, 0.1, 2.0]

    @pytest.mark.parametrize(
        "name,value,match",
        [
            ("cycle_mul", 0, "cycle_mul must be greater than 0, found 0.0"),
            ("cycle_mul", "half", "cycle_mul must be a number, found 'half'"),
            ("warmup", -1, "warmup must be at least 0, found -1.0"),
            ("warmup", 2, "warmup must be less than the 2 epochs of a cycle, found 2"),
            ("decay_rate", 0.0, "decay_rate must be greater than 0 and at most 1, found 0.0"),
            ("decay_rate", 1.1, "decay_rate must be greater than 0 and at most 1, found 1.1"),
            ("decay_epochs", 0, "decay_epochs must be greater than 0, found 0.0"),
            ("decay_epochs", float("nan"), "decay_epochs must be greater than 0, found nan"),
            ("cycle_epochs", 0, "cycle_epochs must be greater than 0, found 0.0"),
            ("cycle_epochs", -2, "cycle_epochs must be greater than 0, found -2.0"),
        ],
    )
    def test_out_of_range(self, name, value, match):
        with pytest.raises(ValueError, match=match):
            cycles("step", **{"cycle_epochs": 2, name: value})

    @pytest.mark.parametrize("name", list(KEYS))
    def test_old_cycles_take_none_of_it(self, name):
        with pytest.raises(ValueError, match=f"{name} goes with lr_func 'linear'.*cyclic_linear"):
            cycles("cyclic_linear", **{name: 1.0})

    def test_old_cycles_need_a_length(self):
        with pytest.raises(ValueError, match=r"cycle_epochs must be greater than 0, found -1\.0"):
            cycles("cyclic_linear", cycle_epochs=-1)

    @pytest.mark.parametrize("func", ["exponential", "step"])
    def test_decay_leads_down(self, func):
        with pytest.raises(ValueError, match=r"final_lr of .* at most init_lr 0\.1, found 0"):
            cycles(func, 0.1, 0.2)

    def test_a_recipe_names_the_line(self):
        with pytest.raises(RecipeValueError, match=r":11:.*cycle_mul must be greater than 0"):
            ScheduledModifierManager.from_yaml(RECIPE.replace("cycle_mul: 1.0", "cycle_mul: -1"))
        with pytest.raises(Exception, match="did you mean 'cycle_mul'"):
            ScheduledModifierManager.from_yaml(RECIPE.replace("cycle_mul", "cycle_mult"))


@pytest.mark.parametrize("func", ["linear", "cosine", "exponential", "step"])
def test_resumes_after_any_step(require_exact_resume, func):
    rates = require_exact_resume(
        lambda: cycles(func, 0.1, 0.01, 0.5, 2.5, cycle_epochs=0.75, cycle_mul=0.5, warmup=0.25)
    )
    assert len(set(rates)) > 4
