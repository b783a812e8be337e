"""Knowledge distillation as a loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["KDSettings", "distillation_loss"]


@dataclass
class KDSettings:
    """How to distil.

    :param teacher: the model to learn from
    :param temp_student: temperature of the student's logits
    :param temp_teacher: temperature of the teacher's logits
    :param weight: weight of the distillation loss, that of the task being ``1 - weight``
    :param contradict_hinton: leave out the factor that keeps the gradient's size independent of
        the temperature
    """

    teacher: nn.Module
    temp_student: float = 5.0
    temp_teacher: float = 5.0
    weight: float = 0.5
    contradict_hinton: bool = False


def distillation_loss(student: Tensor, teacher: Tensor, settings: KDSettings) -> Tensor:
    """Return the divergence of the student's predictions from the teacher's (0-d).

    ``KL(softmax(teacher / Tt) || softmax(student / Ts))``, averaged over the batch, times
    ``((Ts + Tt) / 2) ** 2`` (Hinton et al., 2015).

    :param student: logits, ``[batch, classes]``
    :param teacher: logits of the same shape
    """
    loss = F.kl_div(
        F.log_softmax(student / settings.temp_student, dim=-1),
        F.log_softmax(teacher / settings.temp_teacher, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    if settings.contradict_hinton:
        return loss
    return loss * ((settings.temp_student + settings.temp_teacher) / 2) ** 2
