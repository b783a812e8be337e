"""How far a student is from its teacher: in its outputs, in its features.

All of it is computed in single precision at least, so that half-precision outputs neither overflow
nor vanish.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_Heads = list[tuple[str, Tensor, Tensor]]


def kl_logsoftmax(x: Tensor, y: Tensor, temperature: float, dim: int = -1) -> Tensor:
    r"""Divergence of a student's softened predictions from a teacher's, per prediction.

    :math:`T^2 \sum_i q_i (\log q_i - \log p_i)` with :math:`p = softmax(x / T)` and
    :math:`q = softmax(y / T)`, averaged over everything but ``dim``: Hinton et al., "Distilling the
    knowledge in a neural network" (2015). The factor keeps gradients of one size at all
    temperatures.

    :param x: logits of the student, any shape with classes in ``dim``
    :param y: logits of the teacher, of the same shape
    :param temperature: above 0; a high one makes small probabilities count
    :return: 0-d, at least float32
    """
    divergence = _divergence(_wide(x) / temperature, _wide(y) / temperature, dim, "sum")
    return divergence * temperature**2 / (x.numel() / y.size(dim))


def softened_divergence(
    student: Tensor,
    teacher: Tensor,
    temp_student: float,
    temp_teacher: float,
    same_size: bool = True,
    dim: int = -1,
) -> Tensor:
    """Return the divergence of a student's predictions from a teacher's (0-d).

    ``KL(softmax(teacher / Tt) || softmax(student / Ts))``, averaged over the batch, times
    ``((Ts + Tt) / 2) ** 2`` (Hinton et al., 2015).

    :param student: logits, ``[batch, classes]``, or ``[batch, ...]`` with the classes in ``dim``
    :param teacher: logits of the same shape
    :param temp_student: temperature of the student's logits
    :param temp_teacher: temperature of the teacher's logits
    :param same_size: multiply by the factor, which keeps gradients of one size at all temperatures
    """
    loss = _divergence(student / temp_student, teacher / temp_teacher, dim, "batchmean")
    return loss * ((temp_student + temp_teacher) / 2) ** 2 if same_size else loss


def kldiv_loss(
    student_outputs: Any,
    teacher_outputs: Any,
    temperature: float = 2.0,
    output_keys: Iterable[Any] | None = None,
    dim: int = -1,
    mask: Tensor | None = None,
) -> Tensor | float:
    """The mean of :func:`kl_logsoftmax` over the heads of two outputs.

    :param student_outputs: logits, or a mapping or iterable of such
    :param teacher_outputs: the same kind of thing, with the same shapes
    :param output_keys: keys (of a mapping) or positions of the heads to compare; None or
        empty for all of the student's
    :param dim: the dimension of the classes
    :param mask: of heads ``[batch, tokens, classes]``, the tokens that count: bool, ``[batch,
        tokens]``
    :return: 0-d, at least float32; 0.0 if there are no heads
    :raises ValueError: naming the head, where the two outputs, or a mask, do not fit
    """
    heads = paired_heads(student_outputs, teacher_outputs, output_keys)
    if not heads:
        return 0.0
    if mask is not None:
        heads = [(name, *masked(name, mask, *pair)) for name, *pair in heads]
    losses = [kl_logsoftmax(student, teacher, temperature, dim) for _, student, teacher in heads]
    return torch.stack(losses).mean()


def feature_mse(student: Tensor, teacher: Tensor, normalize: bool, epsilon: float = 0.0) -> Tensor:
    """Mean squared difference of two features.

    :param student: any shape
    :param teacher: the same shape
    :param normalize: divide by the teacher's mean square plus ``epsilon``, so that layers with
        large activations do not drown the others
    :return: 0-d, at least float32
    :raises RuntimeError: when the shapes differ
    """
    student, teacher = _wide(student), _wide(teacher)
    error = (student - teacher).square().mean()
    if student.shape != teacher.shape:
        raise RuntimeError(
            f"the student's feature has shape {tuple(student.shape)}, "
            f"the teacher's {tuple(teacher.shape)}"
        )
    return error / (teacher.square().mean() + epsilon) if normalize else error


def masked(name: str, mask: Tensor, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens of two tensors ``[batch, tokens, width]`` that count, ``[count, width]``.

    :param name: of the tensors, for the message
    :param mask: bool, ``[batch, tokens]``; True counts
    :raises ValueError: for tensors of another shape than this mask is for
    """
    if student.ndim != 3 or student.shape[:2] != mask.shape:
        raise ValueError(
            f"{name} has shape {tuple(student.shape)}, and the mask of padding "
            f"{tuple(mask.shape)}: mask_padding is for what has a vector for each token"
        )
    mask = mask.to(student.device)
    return student[mask], teacher[mask]


def paired_heads(student: Any, teacher: Any, keys: Iterable[Any] | None = None) -> _Heads:
    """``(name, student's, teacher's)`` for each head of two outputs; see :func:`kldiv_loss`.

    A mapping of a kind of its own counts as a mapping. What Hugging Face's models return has the
    heads that have ``logits`` in their names, or else all tensors but ``loss``, unless ``keys``
    name others: beside them there may be caches and hidden states.

    :raises ValueError: when the two differ in kind, a head is missing or no tensor, or shapes
        differ
    """
    if isinstance(student, Tensor) and isinstance(teacher, Tensor):
        return [_checked("output", student, teacher)]
    if isinstance(student, Mapping) and isinstance(teacher, Mapping):
        of_library = hasattr(student, "to_tuple")  # of Hugging Face's
        names = list(keys or (predictions(student) if of_library else student))
    elif _is_sequence(student) and _is_sequence(teacher):
        student, teacher = list(student), list(teacher)
        names = list(keys or range(len(student)))
    else:
        raise ValueError(
            "outputs of student and teacher must be of one kind (tensor, mapping or sequence), "
            f"found {type(student).__name__} and {type(teacher).__name__}"
        )
    return [
        _checked(
            f"output {name!r}", _head(student, name, "student"), _head(teacher, name, "teacher")
        )
        for name in names
    ]


def predictions(outputs: Mapping[Any, Any]) -> list[Any]:
    """Return the names of the heads of a model's outputs: those with ``logits`` in them, or else of
    all tensors but ``loss``."""
    return [key for key in outputs if "logits" in key] or [
        key for key, value in outputs.items() if isinstance(value, Tensor) and key != "loss"
    ]


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (Tensor, Mapping, str, bytes))


def _head(outputs: Any, key: Any, whose: str) -> Any:
    try:
        return outputs[key]
    except (KeyError, IndexError, TypeError):
        known = list(outputs) if isinstance(outputs, Mapping) else list(range(len(outputs)))
        raise ValueError(
            f"the {whose}'s outputs have no {key!r}, they have {known}; "
            "distill_output_keys names the ones to distill"
        ) from None


def _checked(name: str, student: Any, teacher: Any) -> tuple[str, Tensor, Tensor]:
    if not isinstance(student, Tensor) or not isinstance(teacher, Tensor):
        raise ValueError(
            f"{name} must be a tensor, found {type(student).__name__} (student) and "
            f"{type(teacher).__name__} (teacher); distill_output_keys names the ones to distill"
        )
    if student.shape != teacher.shape:
        raise ValueError(
            f"{name} has shape {tuple(student.shape)} in the student and {tuple(teacher.shape)} "
            "in the teacher"
        )
    return name, student, teacher


def _divergence(student: Tensor, teacher: Tensor, dim: int, reduction: str) -> Tensor:
    predicted, wanted = F.log_softmax(student, dim=dim), F.log_softmax(teacher, dim=dim)
    return F.kl_div(predicted, wanted, reduction=reduction, log_target=True)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
