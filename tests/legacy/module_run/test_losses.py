from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseml.pytorch.utils import (
    Accuracy,
    BinaryCrossEntropyLossWrapper,
    CrossEntropyLossWrapper,
    InceptionCrossEntropyLossWrapper,
    KDLossWrapper,
    KDSettings,
    LossWrapper,
    TopKAccuracy,
)
from sparseml.pytorch.utils.loss import DEFAULT_LOSS_KEY, TEACHER_LOSS_KEY

_X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
_LOGITS = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
_LABELS = torch.tensor([0, 1, 2, 4])


def test_keys() -> None:
    assert (DEFAULT_LOSS_KEY, TEACHER_LOSS_KEY) == ("__loss__", "__teacher_loss__")
    wrapper = LossWrapper(F.cross_entropy, {"top1": TopKAccuracy(1)})
    assert wrapper.available_losses == ("__loss__", "top1")
    assert list(wrapper((_X, _LABELS), _LOGITS)) == ["__loss__", "top1"]


@pytest.mark.parametrize("data", [(_X, _LABELS), [_X, "id", _LABELS], {"x": _X, "y": _LABELS}])
@pytest.mark.parametrize("pred", [_LOGITS, (_LOGITS, None), [_LOGITS], {"logits": _LOGITS}])
def test_labels_are_last_and_predictions_first(data: Any, pred: Any) -> None:
    loss = CrossEntropyLossWrapper()(data, pred)["__loss__"]
    assert torch.equal(loss, F.cross_entropy(_LOGITS, _LABELS))


@pytest.mark.parametrize("data", [_X, 3])
def test_labels_need_an_iterable(data: Any) -> None:
    with pytest.raises(TypeError, match="labels last, found"):
        CrossEntropyLossWrapper()(data, _LOGITS)


def test_whole_batches_when_not_deconstructed() -> None:
    got: list[Any] = []
    wrapper = LossWrapper(lambda *args: got.append(args), deconstruct_tensors=False)
    wrapper("data", "pred")
    assert got == [("pred", "data")]


def test_binary_cross_entropy_takes_logits() -> None:
    labels = (_X > 0).float()
    loss = BinaryCrossEntropyLossWrapper()((_X, labels), _X)["__loss__"]
    assert torch.allclose(loss, F.binary_cross_entropy(_X.sigmoid(), labels))


def test_inception() -> None:
    aux = _LOGITS.flip(0)
    wrapper = InceptionCrossEntropyLossWrapper({"top1": TopKAccuracy()}, aux_weight=0.3)
    losses = wrapper((_X, _LABELS), (_LOGITS, aux))
    expected = F.cross_entropy(_LOGITS, _LABELS) + 0.3 * F.cross_entropy(aux, _LABELS)
    assert torch.allclose(losses["__loss__"], expected)
    assert torch.equal(losses["top1"], TopKAccuracy()(_LOGITS, _LABELS))
    plain = wrapper((_X, _LABELS), _LOGITS)["__loss__"]
    assert torch.equal(plain, F.cross_entropy(_LOGITS, _LABELS))


def _teacher() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.9))


@pytest.mark.parametrize("contradict", [False, True])
def test_distillation(contradict: bool) -> None:
    teacher = _teacher().train()
    settings = KDSettings(teacher, 2.0, 4.0, weight=0.7, contradict_hinton=contradict)
    wrapper = KDLossWrapper(F.cross_entropy, kd_settings=settings)
    assert wrapper.available_losses == ("__loss__", "__teacher_loss__")
    losses = wrapper((_X, _LABELS), _LOGITS)
    targets = (teacher.eval()(_X) / 4.0).softmax(-1)
    by_hand = (targets * (targets.log() - (_LOGITS / 2.0).log_softmax(-1))).sum() / 4
    kd_loss = by_hand * (1.0 if contradict else 9.0)
    assert torch.allclose(losses["__teacher_loss__"], kd_loss)
    total = 0.7 * kd_loss + 0.3 * F.cross_entropy(_LOGITS, _LABELS)
    assert torch.allclose(losses["__loss__"], total)


def test_distillation_gives_gradients_to_the_student_only() -> None:
    teacher, student = _teacher(), nn.Linear(3, 5)
    wrapper = KDLossWrapper(F.cross_entropy, kd_settings=KDSettings(teacher))
    wrapper((_X, _LABELS), student(_X))["__loss__"].backward()
    assert student.weight.grad is not None
    assert teacher[0].weight.grad is None


def test_distillation_without_settings_is_the_plain_loss() -> None:
    wrapper = KDLossWrapper(F.cross_entropy)
    assert wrapper.available_losses == ("__loss__",)
    assert list(wrapper((_X, _LABELS), _LOGITS)) == ["__loss__"]


def test_accuracy() -> None:
    pred = torch.tensor([0.9, 0.5, 0.49, 0.1])
    assert float(Accuracy()(pred, torch.tensor([1, 1, 1, 0]))) == 75.0
    assert float(Accuracy.calculate(pred, torch.tensor([1.0, 0.0, 0.0, 0.0]))) == 75.0


@pytest.mark.parametrize(("topk", "expected"), [(1, 50.0), (2, 75.0), (3, 100.0)])
def test_top_k_accuracy(topk: int, expected: float) -> None:
    pred = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    labels = torch.tensor([0, 1, 2, 2])
    assert float(TopKAccuracy(topk)(pred, labels)) == expected
    assert float(TopKAccuracy.calculate(pred, labels, topk)) == expected
