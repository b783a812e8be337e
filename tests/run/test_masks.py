"""Masks in force, and masks in files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sparseml
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils import CheckpointError
from sparseml.run import (
    mask_weights,
    masked_sparsity,
    masks_in_force,
    read_masks,
    write_masks,
)

RECIPE = """
pruning_modifiers:
  - !MagnitudePruningModifier
      params: ['0.weight']
      init_sparsity: 0.25
      final_sparsity: 0.5
      start_epoch: 1
      end_epoch: 2
      update_frequency: 1
  - !MagnitudePruningModifier
      params: ['1.weight']
      init_sparsity: 0.5
      final_sparsity: 0.5
      start_epoch: 0
      end_epoch: 3
      update_frequency: 1
"""


def _started(steps: int) -> ScheduledModifierManager:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    manager = ScheduledModifierManager.from_yaml(RECIPE)
    optimizer = manager.modify(model, torch.optim.SGD(model.parameters(), 0.1), steps_per_epoch=2)
    for _ in range(steps):
        model(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return manager


def test_masks_in_force_are_those_of_modifiers_that_have_started() -> None:
    manager = _started(1)
    assert list(masks_in_force(manager)) == ["1.weight"]
    assert masked_sparsity(manager) == pytest.approx(16 / 96)
    manager = _started(5)
    assert sorted(masks_in_force(manager)) == ["0.weight", "1.weight"]
    assert masked_sparsity(manager) == 0.5


def test_masks_survive_the_file_in_one_bit_each(tmp_path: Path) -> None:
    masks = {"a": torch.rand(64, 63) > 0.5, "b.weight": (torch.rand(3, 3, 3) > 0.9).float()}
    write_masks(tmp_path / "masks.safetensors", masks)
    read = read_masks(tmp_path / "masks.safetensors", torch.float32)
    assert all(torch.equal(read[name], mask.float()) for name, mask in masks.items())
    assert (tmp_path / "masks.safetensors").stat().st_size < 64 * 63 / 8 + 500


def test_masks_of_tied_weights_go_by_any_name() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    mask_weights(model, {"1.weight": torch.eye(4)})
    assert int(model[0].weight.count_nonzero()) == 4
    recipe = RECIPE[: RECIPE.index("  - !", RECIPE.index("'0.weight'"))].replace("0.w", "1.w")
    assert sparseml.prune(model, recipe=recipe).sparsities == {"1.weight": 0.75}


def test_a_file_of_something_else(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"weights.safetensors holds no packed masks"):
        read_masks(tmp_path / "weights.safetensors")
