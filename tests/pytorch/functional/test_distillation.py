"""How far a student is from its teacher."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.distillation import (
    feature_mse,
    kl_logsoftmax,
    kldiv_loss,
    paired_heads,
)

STUDENT, TEACHER = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
GOLDEN = 1.2806267


class TestKLLogSoftmax:
    @pytest.mark.parametrize("repeats", [1, 7])
    def test_golden_value_whatever_the_batch(self, repeats):
        x, y = STUDENT.repeat(repeats, 1), TEACHER.repeat(repeats, 1)
        assert kl_logsoftmax(x, y, 2.0).item() == pytest.approx(GOLDEN, abs=1e-6)

    @given(st.integers(0, 99), st.floats(0.5, 10.0), st.sampled_from([(4, 5), (2, 3, 4)]))
    @settings(deadline=None, max_examples=25)
    def test_definition(self, seed, temperature, shape):
        torch.manual_seed(seed)
        x, y = torch.randn(2, *shape, dtype=torch.float64)
        p, q = (torch.softmax(z / temperature, dim=-1) for z in (x, y))
        expected = (q * (q / p).log()).sum(-1).mean() * temperature**2
        assert torch.isclose(kl_logsoftmax(x, y, temperature), expected, rtol=1e-9)

    def test_other_dimension(self):
        x, y = torch.randn(2, 3, 4, 5)
        other = kl_logsoftmax(x, y, 3.0, dim=0)
        assert torch.isclose(other, kl_logsoftmax(x.movedim(0, -1), y.movedim(0, -1), 3.0))

    def test_equal_predictions(self):
        assert kl_logsoftmax(STUDENT, STUDENT + 5.0, 2.0).abs() < 1e-6

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_neither_overflows_nor_vanishes(self, dtype):
        # the sum over the batch is far beyond what float16 holds
        x, y = STUDENT.to(dtype).repeat(20000, 100), TEACHER.to(dtype).repeat(20000, 100)
        x.requires_grad_()
        loss = kl_logsoftmax(x, y, 100.0)
        loss.backward()
        exact = kl_logsoftmax(x.double(), y.double(), 100.0)
        assert loss.dtype == torch.float32 and x.grad.dtype == dtype
        assert loss.item() == pytest.approx(exact.item(), rel=1e-3)

    def test_gradient_leads_to_the_teacher(self):
        x = STUDENT.clone().requires_grad_()
        kl_logsoftmax(x, TEACHER, 2.0).backward()
        better = kl_logsoftmax(x - x.grad, TEACHER, 2.0)
        assert better < GOLDEN and x.grad[0, 0] < -0.1 and x.grad[0, 2] > 0.1


class TestHeads:
    @pytest.mark.parametrize(
        "pack",
        [
            lambda head: head,
            lambda head: [head, head],
            lambda head: (head,),
            lambda head: {"logits": head, "aux": head},
            lambda head: OrderedDict(logits=head),
            lambda head: iter([head, head]),
        ],
    )
    def test_every_container(self, pack):
        assert float(kldiv_loss(pack(STUDENT), pack(TEACHER), 2.0)) == pytest.approx(GOLDEN)

    def test_mean_over_the_chosen_heads(self):
        student = {"a": STUDENT, "b": TEACHER, "hidden": [1]}
        teacher = OrderedDict(b=TEACHER, a=TEACHER, other=None)
        assert float(kldiv_loss(student, teacher, 2.0, ["a", "b"])) == pytest.approx(GOLDEN / 2)
        assert float(kldiv_loss(student, teacher, 2.0, ["b"])) == pytest.approx(0.0, abs=1e-6)
        assert float(kldiv_loss([STUDENT, TEACHER], (TEACHER, TEACHER), 2.0, [0])) == pytest.approx(
            GOLDEN
        )
        assert [name for name, *_ in paired_heads(student, teacher, ["b", "a"])] == [
            "output 'b'",
            "output 'a'",
        ]

    def test_no_heads(self):
        assert kldiv_loss([], []) == 0.0 and kldiv_loss({}, {}) == 0.0

    @pytest.mark.parametrize(
        "student,teacher,keys,message",
        [
            (STUDENT, torch.ones(1, 4), None, r"output has shape \(1, 3\) .*\(1, 4\) in the"),
            ([STUDENT], [torch.ones(2, 3)], None, "output 0 has shape"),
            (STUDENT, [TEACHER], None, "one kind .* found Tensor and list"),
            ({"a": STUDENT}, [TEACHER], None, "found dict and list"),
            ({"a": STUDENT}, {"b": TEACHER}, None, r"teacher's outputs have no 'a', .* \['b'\]"),
            ({"a": STUDENT}, {"a": TEACHER}, ["b"], "student's outputs have no 'b'"),
            ([STUDENT], [TEACHER], [1], r"student's outputs have no 1, they have \[0\]"),
            ([STUDENT], [TEACHER], ["logits"], "student's outputs have no 'logits'"),
            ({"a": None}, {"a": TEACHER}, None, "'a' must be a tensor, found NoneType"),
            ("logits", "logits", None, "found str and str"),
        ],
    )
    def test_outputs_that_do_not_fit(self, student, teacher, keys, message):
        with pytest.raises(ValueError, match=message):
            kldiv_loss(student, teacher, 2.0, keys)


class TestFeatureMSE:
    def test_definition(self):
        student, teacher = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])
        assert feature_mse(student, teacher, False) == 2.5
        assert feature_mse(student, teacher, True) == pytest.approx(0.25)
        assert feature_mse(student, teacher, True, 10.0) == pytest.approx(2.5 / 20)

    def test_scale_of_a_normalised_layer_does_not_count(self):
        student, teacher = torch.randn(2, 5, 6)
        small, large = (feature_mse(s * student, s * teacher, True) for s in (1.0, 1000.0))
        assert small == pytest.approx(large.item(), rel=1e-5)

    def test_half_precision_does_not_overflow(self):
        student, teacher = torch.zeros(3, dtype=torch.float16), torch.full((3,), 3e4).half()
        assert feature_mse(student, teacher, True) == pytest.approx(1.0)
        assert feature_mse(student, teacher, False).dtype == torch.float32

    def test_shapes_must_agree(self):
        with pytest.raises(RuntimeError, match="must match the size of tensor"):
            feature_mse(torch.ones(2, 3), torch.ones(2, 4), True)
        with pytest.raises(RuntimeError, match=r"shape \(2, 1\), the teacher's \(2, 4\)"):
            feature_mse(torch.ones(2, 1), torch.ones(2, 4), True)
