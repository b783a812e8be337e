"""Freezing parameters and setting them to values."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.sparsification import (
    GradualParamModifier,
    SetParamModifier,
    TrainableParamsModifier,
)
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils import INTERPOLATION_FUNCS, interpolate

BIASES = ["0.bias"]
ONES = [1.0, 1.0, 1.0, 1.0]
RAMP = [0.0, 1.0, 2.0, -3.0]


def frozen(run):
    return [name for name, param in run.model.named_parameters() if not param.requires_grad]


def bias(run):
    return run.model[0].bias.tolist()


class TestTrainable:
    def test_from_start_to_end(self, run):
        modifier = TrainableParamsModifier(["re:0.*"], False, start_epoch=0.5, end_epoch=1.25)
        found = run.drive(modifier, 2, read=frozen)
        assert found == [[]] * 2 + [["0.weight", "0.bias"]] * 3 + [[]] * 3

    def test_acts_in_initialize_if_due(self, run):
        TrainableParamsModifier(["0.weight"], False).initialize(run.model)
        assert frozen(run) == ["0.weight"]
        modifier = TrainableParamsModifier(["2.weight"], False, start_epoch=1.0)
        modifier.initialize(run.model, epoch=0.75)
        assert frozen(run) == ["0.weight"]
        modifier.finalize()
        modifier.initialize(run.model, epoch=1.0)
        assert frozen(run) == ["0.weight", "2.weight"]
        assert not modifier.started

    def test_steps_may_be_known_later(self, run):
        modifier = TrainableParamsModifier(["0.weight"], False, start_step=2, end_step=4)
        modifier.initialize(run.model)
        assert frozen(run) == []
        modifier.resolve_steps(4)
        found = run.drive(modifier, 1.5, read=frozen)
        assert found == [[]] * 2 + [["0.weight"]] * 2 + [[]] * 2

    def test_one_shot_needs_no_steps(self, run):
        TrainableParamsModifier(["0.weight"], False, start_step=7).apply(run.model)
        assert frozen(run) == ["0.weight"]

    def test_freezing_clears_gradients(self, run):
        run.model(torch.ones(1, 3)).sum().backward()
        run.drive(TrainableParamsModifier(["0.weight"], False), 0.25)
        assert run.model[0].weight.grad is None and run.model[0].bias.grad is not None

    def test_unfreezes_and_puts_back_what_was(self, run):
        run.model[2].weight.requires_grad_(False)
        modifier = TrainableParamsModifier("__ALL__", True, start_epoch=0.5, end_epoch=1.0)
        modifier.initialize(run.model, loggers=run.loggers)
        modifier.initialize(run.model, 0.75, loggers=run.loggers)  # again: acts, and still knows
        assert frozen(run) == []
        assert run.drive(modifier, 1.5, read=frozen)[-1] == ["2.weight"]

    @pytest.mark.parametrize(
        "params,expected",
        [
            ("__ALL__", ["0.weight", "0.bias", "2.weight", "2.bias"]),
            ("__all_prunable__", ["0.weight", "2.weight"]),
            (["__ALL_PRUNABLE__", "0.bias"], ["0.weight", "0.bias", "2.weight"]),
            ([["0.bias"], ["re:.*bias"]], ["0.bias", "2.bias"]),
        ],
    )
    def test_what_is_selected(self, run, params, expected):
        TrainableParamsModifier(params, False).initialize(run.model)
        assert frozen(run) == expected

    def test_wrapped_models_keep_their_names(self, run):
        wrapped = torch.nn.DataParallel(run.model)
        TrainableParamsModifier(["0.bias"], False).initialize(wrapped)
        assert frozen(run) == ["0.bias"]

    @pytest.mark.parametrize("params", ["0.weight", [], 3])
    def test_params_must_be_names(self, params):
        with pytest.raises(ValueError, match="params"):
            TrainableParamsModifier(params, False)

    def test_strict_params_must_match(self, run):
        modifier = TrainableParamsModifier(["0.wieght"], False)
        with pytest.raises(RuntimeError, match=r"did you mean '0.weight'"):
            modifier.initialize(run.model)
        assert not modifier.initialized

    def test_nothing_to_select_from(self):
        for params in ("__ALL__", "__ALL_PRUNABLE__"):
            with pytest.raises(ValueError, match=f"{params}' select no parameter of the ReLU"):
                TrainableParamsModifier(params, False).initialize(torch.nn.ReLU())

    def test_lenient_params_need_not_match(self, run, caplog):
        modifier = TrainableParamsModifier(["0.bias", "9.bias"], False, params_strict=False)
        modifier.initialize(run.model)
        assert frozen(run) == ["0.bias"]
        with caplog.at_level(logging.WARNING, logger="sparseml"):
            TrainableParamsModifier(["9.bias"], False, params_strict=False).initialize(run.model)
        assert "selects no parameter" in caplog.text

    def test_fields(self):
        modifier = TrainableParamsModifier(["a"], "False", params_strict="yes")
        assert modifier.sparsification_types == [SparsificationTypes.general]
        assert (modifier.params, modifier.trainable, modifier.params_strict) == (["a"], False, True)
        modifier.params, modifier.trainable = "__all__", True
        assert (modifier.params, modifier.trainable) == ("__ALL__", True)

    def test_resumes_after_any_step(self, new_run):
        def make():
            return TrainableParamsModifier(["0.bias"], False, start_epoch=0.5, end_epoch=1.5)

        whole = new_run().drive(make(), 2, read=frozen)
        for stop in range(9):
            first, second, modifier, again = new_run(), new_run(), make(), make()
            modifier.initialize(first.model)
            before = first.drive(modifier, stop / 4, read=frozen)
            again.initialize(second.model, stop / 4)
            again.load_progress_state(modifier.progress_state())
            assert frozen(second) == frozen(first)
            assert before + second.drive(again, 2, read=frozen, first=stop) == whole


class TestSetParam:
    def test_writes_once_at_the_start(self, run):
        original = bias(run)
        modifier = SetParamModifier(BIASES, RAMP, start_epoch=0.5, end_epoch=3.0)
        found = run.drive(modifier, 1, read=bias)
        assert found == [original] * 2 + [RAMP] * 2
        torch.nn.init.ones_(run.model[0].bias)
        assert run.drive(modifier, 4, read=bias, first=4)[-1] == ONES

    def test_numbers_may_be_text_tuples_or_tensors(self, run):
        modifier = SetParamModifier(BIASES, ("1e-3", 0, "2", 1.5))
        assert modifier.val == [1e-3, 0, 2.0, 1.5]
        assert SetParamModifier(BIASES, torch.tensor(RAMP)).val == RAMP
        assert "val: [0.0, 1.0, 2.0, -3.0]" in str(SetParamModifier(BIASES, torch.tensor(RAMP)))

    @pytest.mark.parametrize("val", [None, "half", [1.0, [2.0]], ["x"]])
    def test_value_must_be_numbers(self, val):
        with pytest.raises(ValueError, match="val must"):
            SetParamModifier(BIASES, val)

    @pytest.mark.parametrize("val", [1.0, [1.0] * 3, [ONES]])
    def test_shape_must_fit(self, run, val):
        modifier = SetParamModifier(BIASES, val)
        with pytest.raises(ValueError, match=r"val has the shape .* parameter 0.bias has \[4\]"):
            modifier.initialize(run.model)
        assert not modifier.initialized

    def test_parameters_must_take_values(self, run):
        with pytest.raises(ValueError, match=r"parameter 0\.bias is on the meta device"):
            SetParamModifier(BIASES, ONES).initialize(run.model.to("meta"))

    def test_end_is_fixed(self):
        modifier = SetParamModifier(BIASES, ONES)
        with pytest.raises(ValueError, match="must stay"):
            modifier.end_epoch = 3.0

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_rounds_once_to_the_dtype(self, run, dtype):
        run.model.to(dtype)
        modifier = SetParamModifier(BIASES, [0.1, 0.2, 0.3, 0.4])
        run.drive(modifier, 0.25)
        assert torch.equal(run.model[0].bias, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=dtype))


class TestGradualParam:
    def make(self, **kwargs):
        fields = {"start_epoch": 1.0, "end_epoch": 2.0, "update_frequency": -1.0, **kwargs}
        return GradualParamModifier(BIASES, RAMP, ONES, **fields)

    def test_linear(self, run):
        found = run.drive(self.make(), 3, read=lambda run: run.model[0].bias[3].item())
        assert found[4:] == pytest.approx([-3.0, -2.0, -1.0, 0.0, 1.0, 1.0, 1.0, 1.0])

    @pytest.mark.parametrize("func", INTERPOLATION_FUNCS)
    def test_follows_its_curve_and_ends_exactly(self, run, func):
        found = run.drive(self.make(inter_func=func), 3, read=bias)
        for step in range(4, 12):
            expected = [interpolate(step / 4, 1, 2, a, 1.0, func) for a in RAMP]
            assert found[step] == pytest.approx(expected, abs=1e-6)
        assert found[4] == RAMP and found[8] == ONES

    def test_only_at_updates(self, run):
        found = run.drive(self.make(update_frequency=0.5), 3, read=bias)
        assert found[4] == found[5] != found[6] == found[7]
        assert found[8] == ONES

    @given(spe=st.integers(1, 7), start=st.integers(0, 5), length=st.integers(1, 9))
    @settings(deadline=None, max_examples=20)
    def test_in_steps(self, new_run, spe, start, length):
        run = new_run()
        modifier = GradualParamModifier(
            BIASES, [0.0] * 4, ONES, start_step=start, end_step=start + length, update_frequency=-1
        )
        modifier.initialize(run.model, steps_per_epoch=spe)
        found = run.drive(modifier, (start + length + 1) / spe, spe, read=lambda r: bias(r)[0])
        expected = [step / length for step in range(length)] + [1.0]
        assert found[start:] == pytest.approx(expected, abs=1e-6)

    def test_both_values_must_fit(self, run):
        modifier = GradualParamModifier(BIASES, ONES, [ONES], 0.0, 1.0, -1.0)
        with pytest.raises(ValueError, match=r"final_val has the shape \[1, 4\]"):
            modifier.initialize(run.model)

    def test_fields(self):
        modifier = self.make(inter_func="cubic", params_strict=False)
        assert modifier.sparsification_types == [SparsificationTypes.general]
        assert (modifier.init_val, modifier.final_val) == (RAMP, ONES)
        with pytest.raises(ValueError, match="did you mean 'cubic'"):
            modifier.inter_func = "cubik"
        with pytest.raises(ValueError, match="greater than start_epoch"):
            self.make(end_epoch=1.0)
        with pytest.raises(ValueError, match="end_epoch of GradualParamModifier must be at least"):
            self.make(start_epoch=-1.0, end_epoch=-1.0)
