"""Every recipe for timm's models: valid, and fitting its model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from click.testing import CliRunner

from sparseml.cli import main
from sparseml.cli.model_source import build_model
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.timm import GLUE

ROOT = Path(__file__).resolve().parents[2]
SHRINKING = sorted((ROOT / "recipes" / "timm" / "srp").glob("*.yaml"))
RECIPES = sorted({*(ROOT / "recipes" / "timm").rglob("*.yaml")} - {*SHRINKING})
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
_BUILT: dict[str, torch.nn.Module] = {}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes" / "timm"))


def _model_of(recipe: Path) -> str:
    lines = recipe.read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("model: "))


@pytest.fixture(autouse=True)
def _build_models_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def build_once(source: str, computes: bool = False) -> torch.nn.Module:
        if computes:  # to be changed
            return build_model(source, computes)
        if source not in _BUILT:
            _BUILT[source] = build_model(source)
        return _BUILT[source]

    monkeypatch.setattr("sparseml.cli.model_source.build_model", build_once)


def _checked(recipe: Path, *flags: str) -> dict[str, Any]:
    arguments = ["recipe", "check", str(recipe), "--model", f"timm:{_model_of(recipe)}", *flags]
    done = CliRunner().invoke(main, [*arguments, "--json", "--steps-per-epoch", "5"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_there_are_recipes_for_every_way_and_pruner() -> None:
    found = {recipe.parent.relative_to(ROOT / "recipes" / "timm").parts for recipe in RECIPES}
    ways = ("one_shot", "one_shot+finetune", "gradual")
    pruners = ("cap", "fast_cap", "obs", "mfac", "gm", "gw")
    assert found == {(way, pruner) for way in ways for pruner in pruners} | {("structured",)}


@pytest.mark.parametrize("recipe", RECIPES, ids=_name)
def test_recipe_fits_its_model(recipe: Path) -> None:
    found = _checked(recipe)
    pruners = [m for m in found["modifiers"] if m["modifier"].endswith("PruningModifier")]
    assert len(pruners) == 1
    model = build_model(f"timm:{_model_of(recipe)}") if not _BUILT else _BUILT[
        f"timm:{_model_of(recipe)}"
    ]  # fmt: skip
    shapes = {name: param.ndim for name, param in model.named_parameters()}
    weights = sum(param.numel() for param in model.parameters())
    names = [name for match in pruners[0]["matches"] for name in match["names"]]
    if recipe.parent.name != "structured":  # which takes out all that belongs to a unit
        assert all(shapes[name] > 1 for name in names), "norms and biases must stay dense"
    assert sum(match["weights"] for match in pruners[0]["matches"]) > 0.6 * weights


def test_what_shrinks_the_model_is_told_before_training() -> None:
    assert [recipe.stem for recipe in SHRINKING] == ["single_stage", "two_stage"]
    left = []
    for recipe in SHRINKING:
        assert _model_of(recipe) == "deit_tiny_patch16_224"
        args = ["recipe", "check", str(recipe), "--model", "own:vit", "--json"]
        args += ["--recipe-args", "compression_rate=0.4"]
        found = json.loads(_invoked(args, {"own": _Own}).stdout)
        removes = [m["removes"] for m in found["modifiers"] if "removes" in m]
        left.append(removes[-1]["parameters"]["after"])
        whole = removes[0]["parameters"]["before"]
        assert 0.3 * whole < left[-1] < 0.5 * whole and found["epochs"] == 150
        kinds = [kind for one in removes for kind in one["units"]]
        assert kinds == ["stream", "qk", "vo", "fc"]
        assert "dimensions of the stream" in _invoked(args[:-3], {"own": _Own}).stdout
    assert left[0] == left[1]


class _Own:
    """A module of the user's."""

    @staticmethod
    def vit() -> torch.nn.Module:
        """A small ViT."""
        sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
        model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
        model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 16, 16)}
        return model


def _invoked(arguments: list[str], modules: dict[str, Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "xcit_nano_12_p16_224"]
)
def test_the_recipes_for_transformers_fit_their_relatives(name: str) -> None:
    recipe = str(ROOT / "recipes/timm/one_shot/gm/vit.yaml")
    done = CliRunner().invoke(main, ["recipe", "check", recipe, "--model", f"timm:{name}"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("way", ["one_shot", "one_shot+finetune"])
def test_sparsity_is_a_variable(way: str) -> None:
    recipe = ROOT / "recipes/timm" / way / "gm/vit.yaml"
    manager = ScheduledModifierManager.from_yaml(str(recipe), recipe_variables="sparsity=0.65")
    pruner = manager.pruning_modifiers[0]
    assert (pruner.init_sparsity, pruner.final_sparsity) == (0.65, 0.65)


def test_gradual_recipes_end_before_training_does() -> None:
    recipe = ROOT / "recipes/timm/gradual/gm/vit.yaml"
    manager = ScheduledModifierManager.from_yaml(
        str(recipe), recipe_variables={"num_epochs": 30.0, "final_sparsity": 0.95}
    )
    pruner = manager.pruning_modifiers[0]
    assert manager.max_epochs == 30
    assert pruner.end_epoch == pytest.approx(28)
    assert pruner.update_frequency == pytest.approx(2)
    assert pruner.final_sparsity == 0.95


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configs_are_accepted(config: Path) -> None:
    flags = ["-c", str(config), "--data-dir", "x", "--recipe", "y"]
    settings = GLUE.training_settings([*flags, "--lr", "0.5"])
    content = yaml.safe_load(config.read_text())
    assert settings.schedule.lr == 0.5 and "lr" in settings.given
    assert settings.optimizer.opt == content["opt"] and "opt" not in settings.given
    assert settings.optimizer.drop_path_rate == content["drop_path"]
    assert isinstance(settings.optimizer.opt_eps, float)
    assert GLUE.one_shot_settings(flags).run.seed == content["seed"]
