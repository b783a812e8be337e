"""Averages of masked weights."""

from __future__ import annotations

import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.run import masks_in_force
from sparseml.timm import MaskedEma

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


def _started(steps: int) -> tuple[nn.Module, ScheduledModifierManager, MaskedEma]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    manager = ScheduledModifierManager.from_yaml(RECIPE)
    ema = MaskedEma(model, decay=0.9)
    optimizer = manager.modify(model, torch.optim.SGD(model.parameters(), 0.1), steps_per_epoch=2)
    for step in range(steps):
        model(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update_masked(model, manager, step + 1)
    return model, manager, ema


def test_the_average_is_zero_where_weights_are_masked_and_an_average_elsewhere() -> None:
    model, manager, ema = _started(3)
    params, averaged = dict(model.named_parameters()), dict(ema.module.named_parameters())
    for name, mask in masks_in_force(manager).items():
        assert bool((averaged[name][mask == 0] == 0).all())
        assert bool((averaged[name][mask == 1] != 0).all())
        assert not torch.equal(averaged[name], params[name])
    before = averaged["0.bias"].detach().clone()
    ema.update_masked(model, manager, 4)
    expected = 0.9 * before + 0.1 * params["0.bias"]
    torch.testing.assert_close(averaged["0.bias"].detach(), expected.detach())
