"""The field ``exclude`` of modifiers that select parameters."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from sparseml.cli.problems import Problem
from sparseml.cli.recipe_matches import check_patterns, matches
from sparseml.pytorch import sparsification
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import (
    BasePruningModifier,
    GMPruningModifier,
    Modifier,
    PowerpropagationModifier,
    SetParamModifier,
    TrainableParamsModifier,
)
from sparseml.pytorch.sparsification.training.selected_params import SelectedParams

_TIMES = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 0.5}


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))


def _pruner(**fields: Any) -> GMPruningModifier:
    fields = {"params": "__ALL_PRUNABLE__", "final_sparsity": 0.5, **fields}
    return GMPruningModifier(init_sparsity=0.0, **_TIMES, **fields)


def _names(modifier: Modifier, net: nn.Module) -> list[str]:
    return [one.name for one in modifier.selects(net)]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (None, [0, 1, 2]),
        ([], [0, 1, 2]),
        (["0.weight"], [1, 2]),
        ([r"re:[12]\.weight"], [0]),
        (["re:.*bias"], [0, 1, 2]),
        (["module.0.weight", ["2.weight"]], [1]),
    ],
)
def test_what_is_left(net: nn.Module, exclude: Any, left: list[int]) -> None:
    names = [f"{number}.weight" for number in left]
    modifier = _pruner(exclude=exclude)
    assert _names(modifier, net) == names
    modifier.apply(net)
    pruned = [number for number in range(3) if (net[number].weight == 0).any()]
    assert pruned == left
    both = _pruner(params=[], final_sparsity={0.5: ["re:[01].*weight"], 0.8: "__ALL_PRUNABLE__"})
    both.exclude = exclude
    if exclude != ["re:.*bias"]:
        assert sorted(_names(both, net)) == names


@pytest.mark.parametrize(
    ("exclude", "error", "message"),
    [
        (["3.weight"], RuntimeError, r"exclude: name '3\.weight' matches no parameter"),
        (["0.weight", "re:x"], RuntimeError, "exclude: pattern 're:x' matches no parameter"),
        ("__ALL_PRUNABLE__", ValueError, "exclude .* leaves nothing of what params"),
        ("__ALL__", ValueError, "leaves nothing"),
    ],
)
def test_mistakes(net: nn.Module, exclude: Any, error: type[Exception], message: str) -> None:
    for method in ("initialize", "selects"):
        with pytest.raises(error, match=message):
            getattr(_pruner(exclude=exclude), method)(net)


@pytest.mark.parametrize("exclude", ["0.weight", [1], 7])
def test_no_list(exclude: Any) -> None:
    with pytest.raises(ValueError, match="exclude"):
        _pruner(exclude=exclude)


def test_every_modifier_with_params_has_it() -> None:
    classes = [one for one in vars(sparsification).values() if inspect.isclass(one)]
    bases = (BasePruningModifier, SelectedParams, PowerpropagationModifier)
    found = [one for one in classes if issubclass(one, bases) and not inspect.isabstract(one)]
    assert len(found) > 15
    for one in found:
        assert "exclude" in inspect.signature(one).parameters or one.__name__.startswith("Base")


def test_recipes(net: nn.Module, tmp_path: Path) -> None:
    assert "exclude" not in str(_pruner()) + str(_pruner(exclude=[]))
    modifier = _pruner(exclude=["re:0"])
    assert "    exclude: ['re:0']\n" in str(modifier)
    (again,) = ScheduledModifierManager.from_yaml(f"modifiers:\n- {modifier}").modifiers
    assert again.exclude == ["re:0"] and again.identifier() == modifier.identifier()
    assert modifier.identifier() != _pruner().identifier()
    path = str(tmp_path / "recipe.yaml")
    Path(path).write_text(f"- {_pruner(exclude=['re:3'])}")
    assert matches(modifier, net, path)[0]["names"] == ["1.weight", "2.weight"]
    with pytest.raises(Problem, match="'re:3' matches no parameter"):
        matches(_pruner(exclude=["re:3"]), net, path)
    with pytest.raises(Problem, match="bad regular expression"):
        check_patterns(_pruner(exclude=["re:("]), path)


def test_other_modifiers(net: nn.Module) -> None:
    TrainableParamsModifier("__ALL__", False, start_epoch=0.0, exclude=["re:1"]).apply(net)
    trainable = [name for name, p in net.named_parameters() if p.requires_grad]
    assert trainable == ["1.weight", "1.bias"]
    unused = TrainableParamsModifier(["re:0"], True, params_strict=False, exclude=["re:nothing"])
    assert _names(unused, net) == ["0.weight", "0.bias"]
    assert _names(SetParamModifier(["re:.*bias"], 0.0, exclude=["0.bias"]), net) == [
        "1.bias",
        "2.bias",
    ]
    power = PowerpropagationModifier(0.0, 1.0, "__ALL_PRUNABLE__", exclude=["2.weight"])
    power.initialize(net)
    assert list(power._layers) == ["0", "1"]
    assert "exclude: ['2.weight']" in str(power)
