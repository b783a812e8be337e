"""A session without any library of models: what a run needs from a trainer, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from sparseml.pytorch.utils.batch_streams import GradientBatches, make_grad_sampler
from sparseml.run import Metric, Processes, load_recipe, masked_sparsity
from sparseml.run.settings import (
    CheckpointSettings,
    RunSettings,
    Settings,
    SweepSettings,
    parse,
)

RECIPE = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}
  - !MagnitudePruningModifier
      params: ['re:.*weight']
      init_sparsity: 0.25
      final_sparsity: 0.75
      start_epoch: 0
      end_epoch: 2
      update_frequency: 1
"""
STEPS = 4


@dataclass(kw_only=True)
class TinySettings(Settings):
    """Settings of both runs."""

    run: RunSettings
    sweep: SweepSettings = field(default_factory=SweepSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)


def batches(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Inputs, and what a network is to make of them."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(8, 6, generator=generator) for _ in range(STEPS)]
    return [(some, some[:, :2] - some[:, 2:4]) for some in inputs]


@dataclass
class TinySession:
    """A network of two layers that learns differences."""

    where: Processes
    model: nn.Module
    model_name: str = "tiny"
    metrics: Sequence[Metric] = (
        Metric("near", "val/near"),
        Metric("error", "val/error", percent=False),
    )
    packages: Sequence[str] = ()
    gradient_batch: int = 8
    training_size: int = 8 * STEPS

    def evaluate(self, model: nn.Module, name: str = "evaluating") -> dict[str, float]:
        """Return the mean squared error, and the share of outputs that are near enough."""
        inputs, expected = (torch.cat(part) for part in zip(*batches(1), strict=True))
        with torch.no_grad():
            far = model(inputs) - expected
        near = (far.abs() < 0.5).float()
        return {"near": float(near.mean()), "error": float(far.square().mean())}

    def training_batches(self) -> Iterable[Any]:
        """Return inputs and outputs."""
        return batches(0)

    def grad_sampler(self) -> dict[str, Any]:
        """Return what gradients are sampled on."""
        return make_grad_sampler(lambda n: GradientBatches(lambda: batches(0), (n,)), mse_loss)

    def sample_inputs(self, count: int = 1) -> Tensor:
        """Return some inputs."""
        return batches(1)[0][0][:count]


class TinyTraining:
    """Plain gradient descent."""

    averaged = None

    def __init__(self, session: TinySession, settings: TinySettings, loggers: list[Any]) -> None:
        self.model, self.epochs, self.steps_per_epoch = session.model, 3, STEPS
        self.manager = load_recipe(settings.run.sparseml_recipe, settings.run.recipe_args)
        self._inner = torch.optim.SGD(self.model.parameters(), 0.1)
        self._optimizer = self.manager.modify(
            self.model,
            self._inner,
            steps_per_epoch=STEPS,
            loggers=loggers,
            grad_sampler=session.grad_sampler(),
        )

    @property
    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the model."""
        return {"optimizer": self._inner, "manager": self.manager, "scaler": None}

    @property
    def steps(self) -> int:
        """Return how many steps were taken."""
        return int(self._optimizer.wrapped_steps)

    def epoch(self, number: int, name: str) -> dict[str, float]:
        """Train one epoch."""
        total = 0.0
        for inputs, expected in batches(0):
            self._inner.zero_grad()
            loss = mse_loss(self.model(inputs), expected)
            loss.backward()
            self._optimizer.step()
            total += float(loss.detach())
        return {"loss": total / STEPS, "lr": 0.1, "sparsity": masked_sparsity(self.manager)}

    def after_epoch(self, number: int, found: dict[str, float]) -> None:
        """Keep the learning rate."""

    skip_to = after_epoch


class TinyGlue:
    """Glue to nothing but torch."""

    def one_shot_settings(self, argv: Sequence[str], prog: str | None = None) -> TinySettings:
        """Return settings."""
        return parse(TinySettings, argv, prog=prog)

    training_settings = one_shot_settings

    def open_session(self, settings: TinySettings, where: Processes) -> TinySession:
        """Build the network."""
        return TinySession(where, nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)))

    def set_up_training(
        self, session: TinySession, settings: TinySettings, loggers: list[Any], log: Callable
    ) -> TinyTraining:
        """Prepare gradient descent."""
        return TinyTraining(session, settings, loggers)


@pytest.fixture
def glue() -> TinyGlue:
    """The glue to what is above."""
    return TinyGlue()


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags for a run in an empty folder, below ``out/run``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    flags = ["--recipe", "recipe.yaml", "--output", "out", "--experiment", "run"]
    return [*flags, "--device", "cpu", "--threads", "1", "--no-report"]
