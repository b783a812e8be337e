"""One recipe at several sparsities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import MagnitudePruningModifier
from sparseml.pytorch.sparsification.pruning.masks.outcome import Change, Outcome
from sparseml.run import RunError, asked_sparsities, sweep_recipe

RECIPE = """
modifiers:
  - !MagnitudePruningModifier
      params: ['0.weight']
      init_sparsity: 0.5
      final_sparsity: 0.5
      start_epoch: 0
      end_epoch: 1
      update_frequency: 1
"""
SECOND = RECIPE.partition("modifiers:\n")[2].replace("0.weight", "1.weight")


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))


def _load(text: str = RECIPE) -> ScheduledModifierManager:
    return ScheduledModifierManager.from_yaml(text)


@pytest.mark.parametrize("text", [RECIPE, RECIPE + SECOND], ids=["one", "two"])
def test_each_sparsity_prunes_a_copy(text: str) -> None:
    dense = _model()
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    found = list(sweep_recipe(lambda: _load(text), dense, [0.25, 0.75]))
    assert [(pruned.sparsity, pruned.zeros) for pruned in found] == [(0.25, 0.25), (0.75, 0.75)]
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    for pruned in found:
        for name, mask in pruned.masks.items():
            assert torch.equal(pruned.model.get_parameter(name), before[name] * mask)
        assert f"final_sparsity: {pruned.sparsity}" in str(pruned.manager)


def test_without_sparsities_the_recipe_says() -> None:
    (pruned,) = sweep_recipe(_load, _model(), [])
    assert pruned.sparsity is None and pruned.zeros == 0.5


def test_a_modifier_that_can_sweep_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def sweep(
        self: Any, module: nn.Module, sparsities: Sequence[float], **kwargs: Any
    ) -> Iterator[tuple[float, Outcome]]:
        asked.append((list(sparsities), kwargs))
        weight = module.get_parameter("0.weight")
        for sparsity in sparsities:
            mask = torch.zeros_like(weight, dtype=torch.bool)
            change = Change(mask, torch.full_like(weight, sparsity))
            yield sparsity, Outcome({"0.weight": change})

    monkeypatch.setattr(MagnitudePruningModifier, "sweep", sweep, raising=False)
    found = list(sweep_recipe(_load, _model(), [0.25, 0.75], grad_sampler="given"))
    assert asked == [([0.25, 0.75], {"grad_sampler": "given"})]
    for pruned in found:
        assert bool((pruned.model.get_parameter("0.weight") == pruned.sparsity).all())
        assert pruned.zeros == 1.0


def test_sparsities_that_cannot_be_set() -> None:
    assert asked_sparsities([0.5, 0.9, 0.5]) == [0.5, 0.9]
    with pytest.raises(RunError, match=r"strictly between 0 and 1, found \[1\.0\]"):
        asked_sparsities([0.5, 1.0])
    mapped = RECIPE.replace("['0.weight']", "[]").replace(
        "final_sparsity: 0.5", "final_sparsity: {0.5: ['0.weight']}"
    )
    with pytest.raises(RunError, match="is one per group of parameters"):
        list(sweep_recipe(lambda: _load(mapped), _model(), [0.5]))
    none = "modifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: 1}\n"
    with pytest.raises(RunError, match="no pruning modifier with a final_sparsity"):
        list(sweep_recipe(lambda: _load(none), _model(), [0.5]))
