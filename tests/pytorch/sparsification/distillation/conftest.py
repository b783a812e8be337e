"""A short run of a small student that learns from a larger teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils import LambdaLogger, LoggerManager

PER_EPOCH = 4


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1),
        nn.Linear(12, 5),
    )  # fmt: skip


def large() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(24, 5)
    )


class Distilling:
    """The run; every step sees data of its own, so that it can be stopped anywhere."""

    def __init__(self, *modifiers: Any, teacher: Any = None, optimizer: Any = None) -> None:
        torch.manual_seed(0)
        self.net, self.teacher = small(), large() if teacher is None else teacher
        make = optimizer or (lambda params: torch.optim.Adam(params, lr=0.02))
        self.optimizer = make(self.net.parameters())
        self.logged: list[tuple[str, float, Any]] = []
        logger = LambdaLogger(
            lambda tag, value, values, step, wall_time, level: self.logged.append(
                (tag, value, step)
            )
        )
        self.manager = ScheduledModifierManager(list(modifiers))
        self.stepper = self.manager.modify(
            self.net,
            self.optimizer,
            PER_EPOCH,
            loggers=LoggerManager([logger], log_frequency=0.0, log_python=False),
            distillation_teacher=self.teacher,
        )
        torch.manual_seed(1)

    def loss(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of the task, and with the distillation in it."""
        generator = torch.Generator().manual_seed(number)
        inputs = torch.randn(3, 2, 4, 4, generator=generator)
        outputs = self.net(inputs)
        loss = outputs.square().mean()
        epoch = self.stepper.wrapped_epoch
        return loss, self.manager.loss_update(
            loss, self.net, self.optimizer, epoch, PER_EPOCH,
            student_outputs=outputs, student_inputs=inputs,
        )  # fmt: skip

    def step(self, number: int) -> tuple[float, float]:
        self.optimizer.zero_grad()
        loss, total = self.loss(number)
        total.backward()
        self.stepper.step()
        return loss.item(), total.item()


@pytest.fixture(scope="session")
def distilling() -> Callable[..., Distilling]:
    return Distilling
