"""Distillation from a teacher's outputs, and what all distillation has in common."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from sparseml.pytorch.functional.distillation import kl_logsoftmax
from sparseml.pytorch.sparsification import DistillationModifier
from sparseml.pytorch.sparsification.distillation import modifier_distillation_base
from sparseml.sparsification.types import SparsificationTypes

X = torch.arange(6.0).reshape(2, 3)


class Head(nn.Module):
    """Takes and gives mappings; keeps what it was given."""

    def __init__(self, width=3):
        super().__init__()
        self.linear = nn.Linear(3, width)
        self.seen = None

    def forward(self, **inputs):
        self.seen = {name: value.clone() for name, value in inputs.items()}
        inputs["x"].zero_()
        return {"logits": self.linear(self.seen["x"]), "mode": torch.tensor([self.training])}


def update(modifier, student, inputs=X, epoch=0.0, loss=1.0, **kwargs):
    outputs = kwargs.pop("student_outputs", None)
    if outputs is None:
        outputs = student(inputs)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    return modifier.loss_update(
        torch.tensor(loss), student, optimizer, epoch, 4,
        student_outputs=outputs, student_inputs=inputs, **kwargs,
    )  # fmt: skip


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return nn.Linear(3, 3), nn.Linear(3, 3)


class TestFields:
    def test_defaults(self):
        modifier = DistillationModifier()
        assert (modifier.start_epoch, modifier.end_epoch, modifier.update_frequency) == (-1, -1, -1)
        assert (modifier.hardness, modifier.temperature) == (0.5, 2.0)
        assert modifier.distill_output_keys is None and modifier.teacher_input_keys is None
        assert modifier.sparsification_types == [SparsificationTypes.distillation]
        assert str(modifier) == (
            "!DistillationModifier\n    end_epoch: -1.0\n    hardness: 0.5\n"
            "    start_epoch: -1.0\n    temperature: 2.0\n    update_frequency: -1.0"
        )

    def test_update_frequency_is_discarded(self):
        assert DistillationModifier(update_frequency=0.5).update_frequency == -1.0

    @pytest.mark.parametrize(
        "fields,message",
        [
            ({"hardness": 1.5}, "hardness must be at least 0 and at most 1, found 1.5"),
            ({"hardness": "hard"}, "hardness must be a number"),
            ({"temperature": 0.0}, "temperature must be greater than 0"),
            ({"distill_output_keys": "logits"}, "distill_output_keys must be a list"),
            ({"teacher_input_keys": 3}, "teacher_input_keys must be a list"),
        ],
    )
    def test_bad_values(self, fields, message):
        with pytest.raises(ValueError, match=message):
            DistillationModifier(**fields)

    def test_losses_are_reachable_from_the_base(self):
        assert modifier_distillation_base.kl_logsoftmax is kl_logsoftmax
        assert modifier_distillation_base.kldiv_loss([], [], 2.0) == 0.0


class TestLoss:
    def test_golden_total(self):
        assert DistillationModifier(hardness=0.3).compute_total_loss(1.0, 2.0) == pytest.approx(1.3)

    def test_definition(self, nets):
        student, teacher = nets
        modifier = DistillationModifier(hardness=0.3, temperature=3.0)
        modifier.initialize(student, distillation_teacher=teacher)
        expected = 0.7 * 1.0 + 0.3 * kl_logsoftmax(student(X), teacher(X), 3.0)
        assert torch.isclose(update(modifier, student), expected)

    def test_gradients_reach_only_the_student(self, nets):
        student, teacher = nets
        modifier = DistillationModifier()
        modifier.initialize(student, distillation_teacher=teacher)
        update(modifier, student).backward()
        assert student.weight.grad.abs().sum() > 0 and teacher.weight.grad is None

    def test_teacher_evaluates_copies_of_the_inputs(self):
        student, teacher = Head(), Head()
        teacher.train()
        modifier = DistillationModifier(
            distill_output_keys=["logits"], teacher_input_keys=["x"], hardness=1.0
        )
        modifier.initialize(student, distillation_teacher=teacher)
        features = X.clone().requires_grad_() * 1.0  # no leaf: deepcopy would refuse it
        inputs = {"x": features, "y": X}
        outputs = {"logits": student.linear(features)}
        total = update(modifier, student, inputs, student_outputs=outputs)
        assert not teacher.training and set(teacher.seen) == {"x"}
        assert torch.equal(features, X) and total.requires_grad

    def test_inputs_of_the_teachers_own(self):
        student, teacher = Head(), Head()
        modifier = DistillationModifier(distill_output_keys=["logits"], teacher_input_keys=["x"])
        modifier.initialize(student, distillation_teacher=teacher)
        outputs = student(x=X.clone())
        update(
            modifier, student, {"z": X}, student_outputs=outputs, teacher_inputs={"x": X, "w": X}
        )
        assert set(teacher.seen) == {"x", "w"}

    def test_any_callable_may_teach(self, nets):
        modifier = DistillationModifier(hardness=1.0)
        modifier.initialize(nets[0], distillation_teacher=lambda x: nets[0](x) + 1.0)
        assert update(modifier, nets[0]).abs() < 1e-6

    @pytest.mark.parametrize("given", ["outputs", "inputs"])
    def test_needs_inputs_and_outputs(self, nets, given):
        modifier = DistillationModifier()
        modifier.initialize(nets[0], distillation_teacher=nets[1])
        with pytest.raises(ValueError, match="needs the student's inputs and outputs"):
            modifier.loss_update(
                torch.ones(()), nets[0], None, 0.0, 4, **{f"student_{given}": torch.ones(2, 3)}
            )

    def test_missing_input_key(self):
        modifier = DistillationModifier(teacher_input_keys=["x", "mask"])
        modifier.initialize(Head(), distillation_teacher=Head())
        with pytest.raises(ValueError, match=r"teacher_input_keys names mask, the student.* x$"):
            update(modifier, Head(), {"x": X}, student_outputs={"logits": X})

    def test_outputs_that_do_not_fit(self, nets):
        modifier = DistillationModifier()
        modifier.initialize(nets[0], distillation_teacher=nn.Linear(3, 4))
        with pytest.raises(ValueError, match=r"shape \(2, 3\) in the student and \(2, 4\)"):
            update(modifier, nets[0])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_mixed_precision(self, nets, dtype):
        student, teacher = nets
        modifier = DistillationModifier(hardness=1.0)
        modifier.initialize(student, distillation_teacher=teacher)
        with torch.autocast("cpu", dtype):
            total = update(modifier, student)
            assert total.dtype == torch.float32
        outside = update(modifier, student, student_outputs=student(X).to(dtype))
        (total + outside).backward()
        exact = kl_logsoftmax(student(X), teacher(X), 2.0).item()
        assert total.item() == pytest.approx(exact, rel=0.2)
        assert outside.item() == pytest.approx(exact, rel=0.2)
        assert student.weight.grad.isfinite().all()


class TestTeacher:
    def test_disabled(self, nets, caplog):
        modifier = DistillationModifier()
        with caplog.at_level(logging.WARNING):
            modifier.initialize(nets[0], distillation_teacher="disable")
        assert "DistillationModifier has no teacher" in caplog.text
        assert modifier.loss_update(torch.ones(()), nets[0], None, 0.0, 4) == 1.0

    @pytest.mark.parametrize("teacher", [None, "slef", 3])
    def test_no_teacher_at_all(self, nets, teacher):
        modifier = DistillationModifier()
        with pytest.raises(ValueError, match="distillation_teacher must be a module"):
            modifier.initialize(nets[0], distillation_teacher=teacher)
        assert not modifier.initialized

    def test_misspelt(self, nets):
        with pytest.raises(ValueError, match="did you mean 'self'"):
            DistillationModifier().initialize(nets[0], distillation_teacher="slef")

    def test_self_is_the_student_as_it_was_at_the_start(self, nets):
        student = nn.Sequential(nets[0], nn.Dropout(0.5))
        modifier = DistillationModifier(hardness=1.0, start_epoch=1.0)
        modifier.initialize(student, distillation_teacher="self")
        assert update(modifier, student, epoch=0.0) == 1.0
        with torch.no_grad():
            student[0].weight.add_(1.0)
        student.eval()
        assert update(modifier, student, epoch=1.0).abs() < 1e-6
        weight = student[0].weight.clone()
        with torch.no_grad():
            student[0].weight.mul_(3.0)
        expected = kl_logsoftmax(student(X), X @ weight.T + student[0].bias, 2.0)
        assert torch.isclose(update(modifier, student, epoch=1.0), expected)

    def test_self_of_a_wrapped_model(self, nets):
        wrapped = nn.DataParallel(nets[0])
        modifier = DistillationModifier()
        modifier.initialize(wrapped, distillation_teacher="self")
        update(modifier, wrapped)
        assert type(modifier._teacher) is nn.Linear

    def test_the_student_itself(self, nets, caplog):
        DistillationModifier().initialize(nets[0], distillation_teacher=nn.DataParallel(nets[0]))
        assert "is the student itself" in caplog.text

    def test_finalize_lets_go(self, nets):
        modifier = DistillationModifier()
        modifier.initialize(nets[0], distillation_teacher="self")
        update(modifier, nets[0])
        modifier.finalize(nets[0])
        assert modifier._teacher is None
        modifier.initialize(nets[0], distillation_teacher=nets[1])
        assert update(modifier, nets[0]) != 1.0


class TestSchedule:
    def test_from_start_to_end_inclusive(self, distilling):
        run = distilling(DistillationModifier(start_epoch=0.5, end_epoch=1.5))
        steps = [run.step(number) for number in range(10)]
        assert [loss != total for loss, total in steps] == [False] * 2 + [True] * 5 + [False] * 3

    def test_disabled_modifier(self, distilling):
        modifier = DistillationModifier()
        run = distilling(modifier)
        modifier.enabled = False
        loss, total = run.step(0)
        assert loss == total

    def test_logs_all_three_losses(self, distilling):
        run = distilling(DistillationModifier(hardness=0.25, start_epoch=0.25))
        loss, total = [run.step(number) for number in range(2)][-1]
        logged = {tag: value for tag, value, step in run.logged if step == 1}
        assert logged == {
            "DistillationModifier/task_loss": pytest.approx(loss),
            "DistillationModifier/distillation_loss": pytest.approx((total - 0.75 * loss) / 0.25),
            "DistillationModifier/total_loss": pytest.approx(total),
        }
        assert not [step for _, _, step in run.logged if step == 0]

    def test_learns(self, distilling):
        run = distilling(DistillationModifier(hardness=1.0))
        totals = [run.step(0)[1] for _ in range(60)]
        assert totals[-1] < 0.5 * totals[0]
