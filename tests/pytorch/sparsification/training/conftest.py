"""Driving one modifier through the steps of a short training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sparseml.pytorch.utils import LambdaLogger, LoggerManager


class Run:
    """A small model, its optimizer (two groups, SGD at 0.7) and what loggers were told."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)
        )
        groups = [{"params": layer.parameters()} for layer in (self.model[0], self.model[2])]
        self.optimizer = torch.optim.SGD(groups, lr=0.7, weight_decay=0.1)
        self.logged: list[tuple[str, Any, Any]] = []
        logger = LambdaLogger(
            lambda tag, value, values, step, wall_time, level: self.logged.append(
                (tag, value if values is None else values, step)
            )
        )
        self.loggers = LoggerManager([logger], log_frequency=0.0, log_python=False)

    def step(self, modifier: Any, step: int, steps_per_epoch: int) -> bool:
        epoch = step // steps_per_epoch + (step % steps_per_epoch) / steps_per_epoch
        args = (self.model, self.optimizer, epoch, steps_per_epoch)
        due = modifier.update_ready(epoch, steps_per_epoch)
        if due:
            modifier.scheduled_update(*args)
            modifier.scheduled_log_update(*args)
        return due

    def drive(
        self,
        modifier: Any,
        epochs: float,
        steps_per_epoch: int = 4,
        read: Callable[[Run], Any] = lambda run: run.optimizer.param_groups[0]["lr"],
        first: int = 0,
    ) -> list[Any]:
        """Initialise, drive for so many epochs, and read something off after every step."""
        if not modifier.initialized:
            modifier.initialize(self.model, loggers=self.loggers)
        found = []
        for step in range(first, round(epochs * steps_per_epoch)):
            self.step(modifier, step, steps_per_epoch)
            found.append(read(self))
        return found


@pytest.fixture
def run() -> Run:
    return Run()


@pytest.fixture(scope="session")
def new_run() -> Callable[[], Run]:
    return Run


@pytest.fixture
def require_exact_resume(new_run: Callable[[], Run]) -> Callable[[Callable[[], Any]], list[Any]]:
    """Checks that a modifier resumed after any step goes on as if nothing had been."""

    def require(make: Callable[[], Any]) -> list[Any]:
        whole = new_run()
        rates = whole.drive(make(), 3)
        for stop in range(13):
            first, second, modifier, again = new_run(), new_run(), make(), make()
            before = first.drive(modifier, stop / 4)
            if not before:
                modifier.initialize(first.model)
            second.optimizer.load_state_dict(first.optimizer.state_dict())
            again.initialize(second.model, stop / 4, second.loggers)
            again.load_progress_state(modifier.progress_state())
            assert before + second.drive(again, 3, first=stop) == rates
            assert first.logged + second.logged == whole.logged
        return rates

    return require
