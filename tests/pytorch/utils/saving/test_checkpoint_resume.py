"""A run with a real recipe, stopped after any step and resumed, equals the undisturbed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils import (
    JSONLinesLogger,
    LoggerManager,
    load_checkpoint,
    load_model,
    save_checkpoint,
    tensor_sparsity,
)

_STEPS, _STEPS_PER_EPOCH = 14, 4
_RECIPE = """
training_modifiers:
    - !EpochRangeModifier
        start_epoch: 0.0
        end_epoch: 3.5
    - !LearningRateFunctionModifier
        lr_func: cosine
        init_lr: 0.1
        final_lr: 0.01
        start_epoch: 0.5
        end_epoch: 3.0
    - !SetWeightDecayModifier
        weight_decay: 0.01
        start_epoch: 1.0

pruning_modifiers:
    - !MagnitudePruningModifier
        init_sparsity: 0.1
        final_sparsity: 0.8
        start_epoch: 0.5
        end_epoch: 2.5
        update_frequency: 0.25
        params: ["re:.*weight"]
"""


class _Run:
    def __init__(self, log: Path, resume_step: int | None = None) -> None:
        self.model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
        inner = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.manager = ScheduledModifierManager.from_yaml(_RECIPE)
        loggers = LoggerManager([JSONLinesLogger(log, resume_step)], log_python=False)
        self.optimizer = self.manager.modify(
            self.model, inner, steps_per_epoch=_STEPS_PER_EPOCH, loggers=loggers
        )

    def train(self, steps: int) -> None:
        for _ in range(steps):
            loss = self.model(torch.randn(5, 6)).pow(2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def parts(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "manager": self.manager}

    def state(self) -> list[Any]:
        moments = [entry["momentum_buffer"] for entry in self.optimizer.state.values()]
        return [*self.model.parameters(), *moments, *_tensors(self.manager.state_dict())]


def _tensors(state: Any) -> list[Any]:
    if isinstance(state, dict):
        return [item for value in state.values() for item in _tensors(value)]
    return [torch.as_tensor(state)] if isinstance(state, (torch.Tensor, int, float)) else []


def _entries(log: Path) -> list[str]:
    # all but the time of day
    return [line.partition(",")[2] for line in log.read_text().splitlines()]


@pytest.mark.parametrize("stop", range(_STEPS + 1))
def test_resume_after_every_step(tmp_path: Path, stop: int) -> None:
    torch.manual_seed(0)
    whole = _Run(tmp_path / "whole.jsonl")
    whole.train(stop)
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, whole.model, epoch=stop / _STEPS_PER_EPOCH, **whole.parts())
    log = tmp_path / "resumed.jsonl"
    if (tmp_path / "whole.jsonl").exists():
        log.write_bytes((tmp_path / "whole.jsonl").read_bytes())
    whole.train(_STEPS - stop)

    torch.manual_seed(1)
    resumed = _Run(log, resume_step=stop)
    info = load_checkpoint(path, resumed.model, **resumed.parts())
    resumed.train(_STEPS - stop)

    assert info.recipe == str(whole.manager)
    for expected, found in zip(whole.state(), resumed.state(), strict=True):
        assert torch.equal(expected, found)
    assert _entries(log) == _entries(tmp_path / "whole.jsonl")
    assert float(tensor_sparsity(resumed.model[0].weight)) == pytest.approx(0.8, abs=0.02)


def test_masks_take_a_bit_per_weight(tmp_path: Path) -> None:
    sizes = {}
    for name, recipe in (("plain", ""), ("masked", _RECIPE)):
        model = nn.Linear(256, 256)
        parts: dict[str, Any] = {}
        if recipe:
            manager = ScheduledModifierManager.from_yaml(recipe)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            manager.modify(model, optimizer, steps_per_epoch=_STEPS_PER_EPOCH)
            parts = {"manager": manager}
        save_checkpoint(tmp_path / name, model, rng=False, **parts)
        sizes[name] = (tmp_path / name).stat().st_size
    assert 256 * 256 / 8 <= sizes["masked"] - sizes["plain"] < 256 * 256 / 4


def test_checkpoints_of_sparse_models_are_plain_models(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = _Run(tmp_path / "x.jsonl")
    run.train(_STEPS)
    save_checkpoint(tmp_path / "c.pth", run.model, **run.parts())
    other = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
    load_model(tmp_path / "c.pth", other, strict=True)
    for mine, theirs in zip(run.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
