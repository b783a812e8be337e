"""Selectively regularized pruning in numbers: golden values, closed forms and derivatives."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sparseml.pytorch.functional.shrinking.choosing import importance, keep_in_each, keep_overall
from sparseml.pytorch.functional.shrinking.counting import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    TransformerShape,
)
from sparseml.pytorch.functional.shrinking.norms import (
    require_gates,
    unweighted_layer_norm,
    weighted_layer_norm,
    weighted_rms_norm,
)
from sparseml.pytorch.functional.shrinking.rates import (
    DECREASING,
    gate_value,
    keep_ratio,
    removed_count,
)

IWSLT = TransformerShape.uniform(8848, 6632, 512, 1024, 6, 6)


def _shrunk(stream: int, head: int, ffn: int) -> TransformerShape:
    """The IWSLT shape with what is left: per head (of 4), and of all feed-forward units."""
    attention = Attention(4 * head, 4 * head)
    widths = [ffn // 12 + (layer < ffn % 12) for layer in range(12)]
    encoder = [EncoderLayer(attention, width) for width in widths[:6]]
    decoder = [DecoderLayer(attention, attention, width) for width in widths[6:]]
    return TransformerShape(8848, 6632, stream, stream, encoder, decoder)


def test_counts_of_the_whole_model() -> None:
    assert IWSLT.parameters() == 39_469_056
    assert sum(IWSLT.shrinking()) == 39_469_056
    assert sum(IWSLT.shrinking(reference=True)) == 39_442_944


@pytest.mark.parametrize(
    ("rate", "ratio", "stream", "head", "ffn", "left"),
    [
        (0.05, 0.153791, 434, 109, 10_399, 1_941_953),
        (0.1, 0.249232, 385, 97, 9_226, 3_898_752),
        (0.2, 0.389678, 313, 79, 7_500, 7_827_714),
        (0.5, 0.674969, 167, 42, 3_994, 19_666_340),
    ],
)
def test_from_rate_to_counts(
    rate: float, ratio: float, stream: int, head: int, ffn: int, left: int
) -> None:
    keep = keep_ratio(*IWSLT.shrinking(reference=True), rate)
    assert keep == pytest.approx(ratio, abs=5e-7)
    counts = [removed_count(size, keep) for size in (512, 128, 12_288)]
    assert counts == [stream, head, ffn]
    assert _shrunk(512 - stream, 128 - head, 12_288 - ffn).parameters() == left


def test_counts_of_the_single_stages() -> None:
    assert _shrunk(199, 128, 12_288).parameters() == 15_364_926
    assert _shrunk(512, 49, 4_788).parameters() == 20_115_468
    assert _shrunk(127, 128, 12_288).parameters() == 9_820_206
    assert _shrunk(512, 31, 3_062).parameters() == 15_688_222
    assert keep_ratio(*IWSLT.shrinking(), 0.2) == pytest.approx(0.389526, abs=5e-7)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0.001, 1.0))
def test_the_keep_ratio_solves_its_equation(both: int, one: int, rate: float) -> None:
    if both + one == 0:
        with pytest.raises(ValueError, match="weights that shrink"):
            keep_ratio(both, one, rate)
        return
    keep = keep_ratio(both, one, rate)
    assert 0.0 < keep <= 1.0
    assert both * keep**2 + one * keep == pytest.approx(rate * (both + one), rel=1e-12)
    assert keep_ratio(both, one, 1.0) == 1.0
    assert keep_ratio(both, one, rate * 0.9) < keep


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ValueError, match="compression_rate is the share"):
        keep_ratio(1, 1, rate)


@given(st.integers(1, 5000), st.floats(0.01, 1.0), st.integers(1, 5))
def test_several_iterations_end_as_one(size: int, keep: float, iterations: int) -> None:
    gone = [removed_count(size, keep, i + 1, iterations) for i in range(iterations)]
    assert gone == sorted(gone) and gone[-1] == removed_count(size, keep)
    assert removed_count(size, 1.0) == 0
    with pytest.raises(ValueError, match="iteration"):
        removed_count(size, keep, iterations + 1, iterations)


def test_flops() -> None:
    assert IWSLT.flops(50, 50) == 3_577_446_400
    assert IWSLT.flops(50, 50, cached=True) == 3_562_393_600
    small = _shrunk(199, 49, 4_788)
    assert small.flops(50, 50) == 638_648_000
    assert small.flops(50, 50, cached=True) == 632_885_600


def test_flops_are_those_of_a_counter() -> None:
    e, d, source, target = 6, 4, 5, 3
    encoder = EncoderLayer(Attention(8, 10), 7)
    decoder = DecoderLayer(Attention(6, 4), Attention(2, 8), 9)
    shape = TransformerShape(11, 13, e, d, [encoder], [decoder])
    x, y = torch.zeros(source, e), torch.zeros(target, d)

    def attend(of: Tensor, to: Tensor, widths: Attention) -> None:
        q, k = (a @ torch.zeros(a.shape[1], widths.qk) for a in (of, to))
        v = to @ torch.zeros(to.shape[1], widths.vo)
        (q @ k.T) @ v @ torch.zeros(widths.vo, of.shape[1])

    with FlopCounterMode(display=False) as counter:
        attend(x, x, encoder.own)
        x @ torch.zeros(e, 7) @ torch.zeros(7, e)
        attend(y, y, decoder.own)
        attend(y, x, decoder.cross)
        y @ torch.zeros(d, 9) @ torch.zeros(9, d)
        y @ torch.zeros(d, 13)
    assert shape.flops(source, target) == counter.get_total_flops()


class TestGates:
    def test_corrected(self) -> None:
        assert [gate_value("sa", i, 5) for i in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
        assert gate_value("sg", 0, 50) == 1.0
        assert gate_value("sg", 49, 50) == pytest.approx(1e-5)
        assert gate_value("sg", 50, 50) == 0.0
        assert gate_value("sa", 0, 1) == gate_value("sg", 0, 1) == 0.0
        assert gate_value("sa", 1, 20 * 1102) == pytest.approx(1 - 4.53741e-5)
        assert gate_value("sg", 1, 20 * 1102) == pytest.approx(0.99947775)

    def test_by_epochs(self) -> None:
        values = [gate_value("ea", i, 8, 2) for i in range(8)]
        assert values == [0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.0, 0.0]
        assert gate_value("eg", 7, 8, 2) == pytest.approx(1e-5)

    def test_reference(self) -> None:
        falling = [gate_value("sa", i, 50, reference=True) for i in range(50)]
        assert falling[:2] == [pytest.approx(0.97959, abs=5e-6), pytest.approx(0.95918, abs=5e-6)]
        assert falling[48] == pytest.approx(0.0, abs=1e-12)
        assert falling[49] == pytest.approx(-0.02041, abs=5e-6)
        rho = [gate_value("sg", i, 50, reference=True) for i in (0, 1, 48, 49)]
        assert rho == pytest.approx([0.790604, 0.625055, 1e-5, 7.906e-6], rel=1e-4)

    @given(st.sampled_from(DECREASING), st.integers(1, 60), st.integers(1, 9))
    def test_never_rises_and_stays_within_bounds(self, how: str, steps: int, epoch: int) -> None:
        values = [gate_value(how, i, steps, epoch) for i in range(steps + 1)]
        assert all(0.0 <= b <= a <= 1.0 for a, b in pairwise(values)) and values[-1] == 0.0

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match="decreasing must be one of sa, sg, ea, eg"):
            gate_value("linear", 0, 5)
        with pytest.raises(ValueError, match="steps"):
            gate_value("sa", 0, 0)


class TestNorms:
    def test_ones_are_no_gates(self) -> None:
        z, w, b = (torch.randn(*s, dtype=torch.float64) for s in ((3, 6), (6,), (6,)))
        ones = torch.ones(6, dtype=torch.float64)
        plain = F.layer_norm(z, (6,), w, b, 1e-5)
        torch.testing.assert_close(weighted_layer_norm(z, ones, w, b), plain, rtol=0, atol=1e-14)
        torch.testing.assert_close(unweighted_layer_norm(z, 6, w, b), plain, rtol=0, atol=1e-14)
        torch.testing.assert_close(
            weighted_rms_norm(z, ones, w), F.rms_norm(z, (6,), w, 1e-6), rtol=0, atol=1e-14
        )

    def test_zeros_leave_units_out(self) -> None:
        z, w, b = (torch.randn(*s, dtype=torch.float64) for s in ((3, 6), (6,), (6,)))
        gates = torch.tensor([1.0, 0, 1, 1, 0, 1], dtype=torch.float64)
        kept = gates > 0
        left = F.layer_norm(z[:, kept], (4,), w[kept], b[kept])
        for scale in (1.0, 0.3):  # only the proportions of the gates count
            found = weighted_layer_norm(z, gates * scale, w, b)[:, kept]
            torch.testing.assert_close(found, left, rtol=0, atol=1e-14)
        rms = F.rms_norm(z[:, kept], (4,), w[kept], 1e-6)
        torch.testing.assert_close(weighted_rms_norm(z, gates, w)[:, kept], rms, rtol=0, atol=1e-14)

    def test_removed_zeros_that_still_count(self) -> None:
        z, kept = torch.randn(3, 6, dtype=torch.float64), torch.tensor([0, 2, 3])
        whole = torch.zeros_like(z).index_copy(1, kept, z[:, kept])
        plain = F.layer_norm(whole, (6,))[:, kept]
        torch.testing.assert_close(unweighted_layer_norm(z[:, kept], 6), plain, rtol=0, atol=1e-14)

    def test_the_reference_adds_epsilon_to_the_deviation(self) -> None:
        z, ones = torch.randn(2, 5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
        expected = (z - z.mean(1, keepdim=True)) / (z.std(1, correction=0, keepdim=True) + 1e-5)
        torch.testing.assert_close(
            weighted_layer_norm(z, ones, reference=True), expected, rtol=0, atol=1e-14
        )

    def test_derivatives_of_the_statistics(self) -> None:
        z = torch.randn(6, dtype=torch.float64)
        c = (torch.rand(6, dtype=torch.float64) + 0.1).requires_grad_()
        mean = (c * z).sum() / c.sum()
        var = (c * (z - mean).square()).sum() / c.sum()
        # through the function itself: its output at one place is (z - mean) / sqrt(var)
        (found,) = torch.autograd.grad(weighted_layer_norm(z, c, eps=0.0)[2], c)
        with torch.no_grad():
            by_mean, by_var = (z - mean) / c.sum(), ((z - mean).square() - var) / c.sum()
            expected = -by_mean / var.sqrt() - 0.5 * (z[2] - mean) * var**-1.5 * by_var
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)

    def test_one_unit_is_its_bias(self) -> None:
        z, b = torch.randn(2, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
        gates = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
        found = weighted_layer_norm(z, gates, None, b)[:, 1]
        torch.testing.assert_close(found, b[1].expand(2), rtol=0, atol=0)

    def test_gates_that_are_none(self) -> None:
        with pytest.raises(ValueError, match="at least one gate"):
            require_gates(torch.zeros(3))
        with pytest.raises(ValueError, match=r"negative, found -0\.5"):
            require_gates(torch.tensor([1.0, -0.5]))
        require_gates(torch.tensor([0.0, 0.5]))


class TestChoice:
    def test_the_largest_gradients_go(self) -> None:
        gradients = torch.tensor([3.0, -1.0, 0.0, 2.0, -5.0, 1.0, 1.0, 1.0])
        keep = keep_in_each(importance(gradients), 2, 2)
        assert keep.int().tolist() == [0, 1, 1, 0, 1, 1, 0, 0]

    def test_one_of_each_pool_stays(self) -> None:
        assert keep_in_each(torch.zeros(6), 2, 9).reshape(2, 3).sum(1).tolist() == [1, 1]
        with pytest.raises(ValueError, match="do not make"):
            keep_in_each(torch.zeros(5), 2, 1)

    def test_ties_and_dead_units_do_not_change_the_count(self) -> None:
        scores = [torch.zeros(5), torch.tensor([0.0, 1.0, 0.0]), torch.zeros(4)]
        for count in range(10):
            keep = keep_overall(scores, count)
            assert sum(int((~one).sum()) for one in keep) == count
            assert all(bool(one.any()) for one in keep)
        assert [one.int().tolist() for one in keep_overall(scores, 3)] == [
            [1] * 5, [1, 1, 1], [1, 0, 0, 0],
        ]  # fmt: skip

    def test_as_many_as_may_go(self) -> None:
        keep = keep_overall([torch.arange(4.0), torch.arange(2.0)], 99, least=2)
        assert [one.int().tolist() for one in keep] == [[0, 0, 1, 1], [1, 1]]
