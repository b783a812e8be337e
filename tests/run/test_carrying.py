"""Carrying the masks of a run into an edited recipe."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.run import (
    RunError,
    carry_masks,
    mask_weights,
    masks_in_force,
    masks_of_run,
    read_masks,
    train,
    write_masks,
)

MAGNITUDE = """
  - !MagnitudePruningModifier
      params: ['{name}.weight']
      init_sparsity: {first}
      final_sparsity: 0.9
      start_epoch: {start}
      end_epoch: {end}
      update_frequency: 1
"""
CONSTANT = "  - !ConstantPruningModifier {params: ['2.weight'], start_epoch: 0, end_epoch: 3}\n"


def _recipe(*modifiers: str) -> str:
    return "modifiers:\n" + "".join(modifiers)


def _magnitude(name: str = "0", first: Any = 0.8, start: int = 1, end: int = 2) -> str:
    return MAGNITUDE.format(name=name, first=first, start=start, end=end)


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


@pytest.fixture
def masks() -> dict[str, torch.Tensor]:
    """Masks at random, of 80 % and a half."""
    generator = torch.Generator().manual_seed(3)
    first = torch.rand(48, generator=generator).argsort().view(8, 6) > 37
    return {"0.weight": first, "2.weight": torch.rand(2, 8, generator=generator) > 0.5}


def _steps(manager: Any, model: nn.Module, count: int) -> list[dict[str, torch.Tensor]]:
    """Train, two steps an epoch, and return the masks after each step."""
    optimizer = manager.modify(model, torch.optim.SGD(model.parameters(), 0.1), steps_per_epoch=2)
    carry_masks(manager, model.masks)  # type: ignore[arg-type]
    found = []
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(4, 6)).square().mean().backward()
        optimizer.step()
        found.append(masks_in_force(manager))
    return found


def test_masks_hold_until_the_recipe_decides(masks: dict[str, torch.Tensor]) -> None:
    model = _model()
    model.masks = masks
    mask_weights(model, masks)
    recipe = _recipe(_magnitude(), _magnitude(start=2, end=3), CONSTANT)
    manager = ScheduledModifierManager.from_yaml(recipe)
    found = _steps(manager, model, 5)
    for step in range(5):
        assert torch.equal(found[step]["2.weight"] != 0, masks["2.weight"])
        gone = (found[step]["0.weight"] == 0).sum() / 48
        assert gone == pytest.approx(38 / 48 if step < 4 else 43 / 48)
        kept = found[step]["0.weight"] != 0
        assert not bool((kept & ~masks["0.weight"]).any()), "what was gone stays gone"
    assert bool((model[0].weight[found[-1]["0.weight"] == 0] == 0).all())


def test_a_recipe_may_begin_from_the_masks(masks: dict[str, torch.Tensor]) -> None:
    del masks["2.weight"]
    model = _model()
    model.masks = masks
    mask_weights(model, masks)
    recipe = _recipe(_magnitude(first="__FROM_PARAM__", start=0))
    manager = ScheduledModifierManager.from_yaml(recipe)
    found = _steps(manager, model, 1)
    assert torch.equal(found[0]["0.weight"] != 0, masks["0.weight"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"1.weight": torch.ones(2)}, "the model has no parameter 1.weight"),
        ({"0.weight": torch.ones(8, 5)}, r"0.weight has shape \(8, 6\), its mask \(8, 5\)"),
        ({}, "no modifier of the recipe prunes 2.weight; a ConstantPruningModifier keeps masks"),
    ],
)
def test_masks_that_do_not_fit(
    masks: dict[str, torch.Tensor], change: dict[str, torch.Tensor], expected: str
) -> None:
    model, before = _model(), _model()
    manager = ScheduledModifierManager.from_yaml(_recipe(_magnitude()))
    manager.modify(model, torch.optim.SGD(model.parameters(), 0.1), steps_per_epoch=2)
    with pytest.raises(RunError, match=expected):
        if change:
            mask_weights(model, {**masks, **change})
        carry_masks(manager, {**masks, **change})
    assert torch.equal(model[0].weight, before[0].weight), "nothing is changed"
    with pytest.raises(RunError, match=r"0.weight has shape \(8, 6\), its mask \(3,\)"):
        carry_masks(manager, {"0.weight": torch.ones(3)})


def test_a_run_with_an_edited_recipe(
    flags: list[str], glue: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    assert train(flags, glue) == 0
    first = read_masks(tmp_path / "out/run/masks.safetensors")
    assert all(torch.equal(mask, first[name]) for name, mask in masks_of_run("out/run").items())
    kept = masks_of_run("out/run/checkpoints/tiny_last.pth")
    assert kept.keys() == first.keys()
    assert all(torch.equal(mask, first[name]) for name, mask in kept.items())

    text = (tmp_path / "recipe.yaml").read_text()
    edited = text.replace("init_sparsity: 0.25", "init_sparsity: 0.8").replace("0.75", "0.9")
    (tmp_path / "edited.yaml").write_text(edited)
    (tmp_path / "lower.yaml").write_text(text.replace("Magnitude", "GlobalMagnitude"))
    caplog.set_level(logging.INFO)
    more = ["--recipe", "edited.yaml", "--experiment", "second", "--initial-masks", "out/run"]
    assert train([*flags, *more], glue) == 0
    second, weights = masks_of_run("out/second"), load_file("out/second/model.safetensors")
    for name, mask in first.items():
        assert not bool((second[name] & ~mask).any())
        assert bool((weights[name][~mask] == 0).all())
    assert "MagnitudePruningModifier takes 2 masks, sparsity 0.75" in caplog.text
    assert "asks for 0.8 at epoch 0, and at last for 0.9 at epoch 2" in caplog.text
    assert "weights come back" not in caplog.text
    more[1], more[3] = "lower.yaml", "third"
    assert train([*flags, *more], glue) == 0
    assert "weights come back: let it begin with init_sparsity 0.75" in caplog.text

    write_masks("small.safetensors", {"0.weight": torch.ones(3)})
    for path, expected in (
        ("nowhere", "--initial-masks nowhere: no such file or folder"),
        ("small.safetensors", "--initial-masks: 0.weight has shape (8, 6), its mask (3,)"),
        ("out/second/model.safetensors", "model.safetensors holds no packed masks"),
        (".", "--initial-masks .: 3 files *_last.pth are there, not one"),
    ):
        assert train([*flags, "--experiment", "x", "--initial-masks", path], glue) == 2
        assert expected in capsys.readouterr().err
