"""A child process in miniature, run within this one, and chains of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from sparseml.cli import main
from sparseml.gap import launcher
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils.saving.files import read_safetensors, write_safetensors
from sparseml.run.masks import MASKS_FILE, carry_masks, masks_in_force, read_masks, write_masks

PER_EPOCH = 3
COMMAND = ["child", "{recipe}", "{output}", "{seed}", "{epochs}"]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 12), nn.LayerNorm(12), nn.Linear(12, 3)
    )


def train(recipe, output, seed, epochs, parent=None):
    """Train as a child does."""
    model = net()
    if parent is not None:
        model.load_state_dict(read_safetensors(Path(parent))[0])
    manager = ScheduledModifierManager.from_yaml(recipe)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    stepper = manager.modify(model, optimizer, steps_per_epoch=PER_EPOCH)
    carried = None if parent is None else Path(parent).with_name(MASKS_FILE)
    if carried is not None and carried.exists():
        carry_masks(manager, read_masks(carried))
    generator = torch.Generator().manual_seed(int(seed))
    for _ in range(int(epochs) * PER_EPOCH):
        optimizer.zero_grad()
        (model(torch.randn(5, 6, generator=generator)) - 1).pow(2).mean().backward()
        stepper.step()
    masks = masks_in_force(manager)
    manager.finalize(model)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", model.state_dict(), {"format": "pt"})
    write_masks(folder / MASKS_FILE, masks)


class Children:
    """Stands for the processes; remembers their command lines, and fails on demand."""

    def __init__(self):
        self.commands, self.failing, self.spoiling = [], set(), set()

    @property
    def names(self):
        return [Path(command[1]).stem for command in self.commands]

    def run(self, command, stdout, **_):
        self.commands.append(command)
        name = Path(command[1]).stem
        if name in self.failing:
            stdout.write(b"out of luck\n")
            return subprocess.CompletedProcess(command, 3)
        train(*command[1:])
        if name in self.spoiling:
            file = Path(command[2]) / "model.safetensors"
            weights = read_safetensors(file)[0]
            write_safetensors(file, {n: w + 1.0 for n, w in weights.items()}, {"format": "pt"})
        return subprocess.CompletedProcess(command, 0)


@pytest.fixture
def children(monkeypatch):
    found = Children()
    monkeypatch.setattr(launcher.subprocess, "run", found.run)
    return found


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """Run ``sparseml gap train`` with flags; what came of it."""
    monkeypatch.chdir(tmp_path)

    def run(*flags, child=COMMAND, status=0):
        given = [
            "--workspace",
            "out",
            "--checkpoint",
            "model.safetensors",
            "--with-parent",
            "{parent}",
        ]
        result = CliRunner().invoke(main, ["gap", "train", *given, *flags, "--", *child])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.output

    return run


@pytest.fixture
def manifest(tmp_path):
    def read():
        content = json.loads((tmp_path / "out/manifest.json").read_text())
        return {entry["name"]: entry for entry in content["steps"]}

    return read
