from __future__ import annotations

from collections import namedtuple
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


@pytest.mark.parametrize("data", [_X, 3, None, (), {}])
def test_labels_need_an_iterable_that_holds_something(data: Any) -> None:
    with pytest.raises(TypeError, match="a batch must"):
        CrossEntropyLossWrapper()(data, _LOGITS)
    with pytest.raises(TypeError, match="a batch must"):
        LossWrapper(F.cross_entropy, deconstruct_tensors=False)(data, _LOGITS)


@pytest.mark.parametrize("pred", [3, None, []])
def test_predictions_need_a_tensor_or_an_iterable(pred: Any) -> None:
    wrapper = CrossEntropyLossWrapper()
    with pytest.raises(TypeError, match="an output must"):
        wrapper((_X, _LABELS), pred)
    whole = LossWrapper(F.cross_entropy, deconstruct_tensors=False)
    assert whole.get_preds((_X, _LABELS), pred, "__loss__") is pred


def test_without_deconstruction_only_the_output_is_whole() -> None:
    got: list[Any] = []
    wrapper = LossWrapper(lambda *args: got.append(args), deconstruct_tensors=False)
    wrapper((_X, "labels"), ("pred", "more"))
    assert got == [(("pred", "more"), "labels")]
    plain = LossWrapper(F.cross_entropy, deconstruct_tensors=False)
    assert torch.equal(plain((_X, _LABELS), _LOGITS)["__loss__"], F.cross_entropy(_LOGITS, _LABELS))


@pytest.mark.parametrize("kind", [LossWrapper, KDLossWrapper])
def test_subclasses_override_forward_and_the_parts(kind: type[LossWrapper]) -> None:
    class Mine(kind):  # type: ignore[valid-type,misc]
        def get_labels(self, data: Any, pred: Any, name: str) -> Any:
            return super().get_labels(data, pred, name).flip(0)

        def get_preds(self, data: Any, pred: Any, name: str) -> Any:
            return 2 * super().get_preds(data, pred, name)

        def forward(self, data: Any, pred: Any) -> dict[str, torch.Tensor]:
            return {**super().forward(data, pred), "mine": torch.zeros(())}

    wrapper = Mine(F.cross_entropy, {"top1": TopKAccuracy()})
    losses = wrapper((_X, _LABELS), _LOGITS)
    assert list(losses) == ["__loss__", "top1", "mine"]
    assert torch.equal(losses["__loss__"], F.cross_entropy(2 * _LOGITS, _LABELS.flip(0)))
    assert wrapper._loss_fn is F.cross_entropy and list(wrapper._extras) == ["top1"]
    assert wrapper._deconstruct_tensors is True


def test_repr_names_the_functions() -> None:
    wrapper = LossWrapper(F.cross_entropy, {"top1": TopKAccuracy(1), "mse": F.mse_loss})
    assert repr(wrapper) == "LossWrapper(Loss: cross_entropy; Extras: TopKAccuracy,mse_loss)"
    assert repr(BinaryCrossEntropyLossWrapper()) == (
        "BinaryCrossEntropyLossWrapper(Loss: binary_cross_entropy_with_logits; Extras: )"
    )


def test_binary_cross_entropy_takes_logits() -> None:
    labels = (_X > 0).float()
    loss = BinaryCrossEntropyLossWrapper()((_X, labels), _X)["__loss__"]
    assert torch.allclose(loss, F.binary_cross_entropy(_X.sigmoid(), labels))


_InceptionOutputs = namedtuple("_InceptionOutputs", ["logits", "aux_logits"])
_GoogLeNetOutputs = namedtuple("_GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])
_AUX = _LOGITS.flip(0)


@pytest.mark.parametrize(
    ("pred", "heads"),
    [
        ((_AUX, _LOGITS), [_AUX]),  # SparseML's own models, auxiliary logits first
        ([_AUX, _LOGITS, _LOGITS.softmax(-1)], [_AUX]),
        (_InceptionOutputs(_LOGITS, _AUX), [_AUX]),  # torchvision's, by the fields' names
        (_InceptionOutputs(_LOGITS, None), []),
        (_GoogLeNetOutputs(_LOGITS, _AUX, 2 * _AUX), [_AUX, 2 * _AUX]),
        ({"aux_logits": _AUX, "logits": _LOGITS}, [_AUX]),
        ({"first": _AUX, "second": _LOGITS}, [_AUX]),
        (_LOGITS, []),
        ((_LOGITS,), []),
    ],
)
def test_inception(pred: Any, heads: list[torch.Tensor]) -> None:
    wrapper = InceptionCrossEntropyLossWrapper({"top1": TopKAccuracy()}, aux_weight=0.3)
    assert wrapper.available_losses == ("__loss__", "top1", "cross_entropy")
    losses = wrapper((_X, _LABELS), pred)
    plain = F.cross_entropy(_LOGITS, _LABELS)
    expected = plain + sum(0.3 * F.cross_entropy(head, _LABELS) for head in heads)
    assert torch.allclose(losses["__loss__"], expected)
    assert torch.equal(losses["cross_entropy"], plain)
    assert torch.equal(losses["top1"], TopKAccuracy()(_LOGITS, _LABELS))
    assert torch.equal(wrapper.loss(pred, _LABELS), losses["__loss__"])


def _teacher() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.9))


@pytest.mark.parametrize("contradict", [False, True])
def test_distillation(contradict: bool) -> None:
    teacher = _teacher().train()
    settings = KDSettings(teacher, 2.0, 4.0, weight=0.7, contradict_hinton=contradict)
    wrapper = KDLossWrapper(F.cross_entropy, kd_settings=settings)
    assert wrapper.available_losses == ("__loss__",)
    losses = wrapper((_X, _LABELS), _LOGITS)
    targets = (teacher.eval()(_X) / 4.0).softmax(-1)
    by_hand = (targets * (targets.log() - (_LOGITS / 2.0).log_softmax(-1))).sum() / 4
    kd_loss = by_hand * (1.0 if contradict else 9.0)
    assert list(losses) == ["__loss__"]
    total = 0.7 * kd_loss + 0.3 * F.cross_entropy(_LOGITS, _LABELS)
    assert torch.allclose(losses["__loss__"], total)


def test_distillation_over_dimension_1_of_any_output() -> None:
    generator = torch.Generator().manual_seed(0)
    student, x = torch.randn(2, 2, 5, 3, 4, generator=generator)
    teacher, settings = nn.Identity(), {"temp_student": 2.0, "temp_teacher": 3.0, "weight": 1.0}
    wrapper = KDLossWrapper(F.cross_entropy, kd_settings=KDSettings(teacher, **settings))
    labels = torch.zeros(2, 3, 4, dtype=torch.long)
    targets, logs = (x / 3.0).softmax(1), (student / 2.0).log_softmax(1)
    by_hand = (targets * (targets.log() - logs)).sum() / 2 * 2.5**2
    assert torch.allclose(wrapper((x, labels), student)["__loss__"], by_hand)


def test_distillation_calls_the_teacher_with_what_get_inputs_finds() -> None:
    names: list[str] = []

    class Mine(KDLossWrapper):
        def get_inputs(self, data: Any, pred: Any, name: str) -> Any:
            names.append(name)
            return data  # (features, labels): the features alone are fed

        def get_preds(self, data: Any, pred: Any, name: str) -> Any:
            names.append(name)
            return super().get_preds(data, pred, name)

    teacher = nn.Linear(3, 5)
    ours = Mine(F.cross_entropy, kd_settings=KDSettings(teacher))((_X, _LABELS), _LOGITS)
    plain = KDLossWrapper(F.cross_entropy, kd_settings=KDSettings(teacher))
    assert torch.equal(ours["__loss__"], plain((_X, _LABELS), _LOGITS)["__loss__"])
    assert names == ["__loss__", *[TEACHER_LOSS_KEY] * 3]


def test_settings_are_read_only() -> None:
    settings = KDSettings(_teacher(), weight=0.7)
    assert settings.weight == 0.7
    with pytest.raises(AttributeError):
        settings.weight = 0.5  # type: ignore[misc]


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
    assert TopKAccuracy(topk)(pred, labels).tolist() == [expected]
    accuracy = TopKAccuracy.calculate(pred.requires_grad_(), labels, topk)
    assert accuracy.tolist() == [expected] and not accuracy.requires_grad
