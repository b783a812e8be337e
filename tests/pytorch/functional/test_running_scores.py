"""Scores that are summed up over steps, and the curves and intervals that go with them."""

from __future__ import annotations

import math

import pytest
import torch

from sparseml.pytorch.functional.patterns import NM
from sparseml.pytorch.functional.schedules import Ramp, over_whole_intervals
from sparseml.pytorch.functional.scores import gradient, saliency, with_momentum

# the curves of Intel Neural Compressor at six updates that lead to 0.9
TABLE = {
    ("exp", 0.0): (0, 0.369043, 0.601893, 0.748811, 0.841511, 0.9),
    ("exp", 0.2): (0.2, 0.472197, 0.651780, 0.770260, 0.848428, 0.9),
    ("cos", 0.0): (0, 0.044049, 0.171885, 0.370993, 0.621885, 0.9),
    ("cos", 0.2): (0.2, 0.234260, 0.333688, 0.488550, 0.683688, 0.9),
    ("linear", 0.0): (0, 0.18, 0.36, 0.54, 0.72, 0.9),
    ("linear", 0.2): (0.2, 0.34, 0.48, 0.62, 0.76, 0.9),
    ("cube", 0.0): (0, 0.0072, 0.0576, 0.1944, 0.4608, 0.9),
    ("cube", 0.2): (0.2, 0.2056, 0.2448, 0.3512, 0.5584, 0.9),
}


@pytest.mark.parametrize(("curve", "initial"), TABLE)
def test_curves(curve, initial):
    ramp = Ramp(initial, 0.9, curve)
    found = [ramp.at(step, 10, 15) for step in range(10, 16)]
    assert found == pytest.approx(TABLE[curve, initial], abs=1e-6)
    assert (found[0], found[-1]) == (initial, 0.9)


@pytest.mark.parametrize("values", [(0.5, 0.5), (1.0, 0.5), (0.0, 1.0)])
def test_exponential_curve_at_its_limits(values):
    ramp = Ramp(*values, "exp")
    assert (ramp.at(0, 0, 4), ramp.at(4, 0, 4)) == values
    assert min(values) <= ramp.at(2, 0, 4) <= max(values)


def test_the_last_whole_interval_is_the_end_of_the_curve():
    # 41 intervals of 50 fit into 229 to 2292
    times = [over_whole_intervals(229 + 50 * k, 229, 2292, 50) for k in range(43)]
    assert times[:3] == [229, 229 + 2063 / 41, 229 + 2 * 2063 / 41]
    assert times[40] < times[41] == times[42] == 2292
    assert over_whole_intervals(math.inf, 229, 2292, 50) == 2292
    assert over_whole_intervals(100, 229, 2292, 50) == 100
    # less than one interval, and no interval at all
    assert over_whole_intervals(5, 5, 9, 5) == 9
    assert over_whole_intervals(7, 5, 9, -1) == 7
    # the same in epochs of 7 steps, whose sums are not exact
    steps = [over_whole_intervals((5 + 5 * k) / 7, 5 / 7, 42 / 7, 5 / 7) for k in range(8)]
    assert steps[7] == 6.0 and steps == sorted(steps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_scores_of_one_step(dtype):
    weight, grad = torch.tensor([2, -3, 0], dtype=dtype), torch.tensor([-1e-5, 1, 5], dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert gradient(weight, grad).dtype == saliency(weight, grad).dtype == wide
    assert gradient(weight, grad).tolist() == grad.to(wide).abs().tolist()
    assert saliency(weight, grad).tolist() == (weight.to(wide) * grad.to(wide)).abs().tolist()


def test_momentum():
    score, total = torch.tensor([1.0, 2.5], dtype=torch.float64), torch.zeros(2).double()
    for step in range(1, 30):
        total = with_momentum(total, score)
        # swapped coefficients would grow without bound
        torch.testing.assert_close(total, 10 * score * (1 - 0.9**step))
    assert torch.equal(with_momentum(total, score, decay=0.0, gain=2.0), 2 * score)
    for bad in (math.inf, math.nan):
        assert torch.equal(with_momentum(total, torch.tensor([1.0, bad]).double()), total)
    half = with_momentum(total.bfloat16(), score)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), with_momentum(total, score), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("reduce", "expected"), [("mean", [0.75, 1.5]), ("sum", [3, 6]), ("max", [2, 4])]
)
def test_what_a_group_loses(reduce, expected):
    scores = torch.tensor([[5.0, 1, 2, 9, 4, 7, 8, 2]])
    assert NM(2, 4, reduce).unit_scores(scores).tolist() == [expected]
