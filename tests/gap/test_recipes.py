"""The ready recipes: valid, and fitting models that we did not write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sparseml.cli import main
from sparseml.cli.recipe_phases import phases
from sparseml.pytorch.optim import ScheduledModifierManager

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes" / "gap").glob("*.yaml"))


def model_for(recipe):
    name = next(line.split()[1] for line in recipe.read_text().splitlines() if "model: " in line)
    with torch.device("meta"):
        if recipe.stem != "bert":
            return pytest.importorskip("timm").create_model(name)
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(hidden_size=64, num_attention_heads=2)
        return transformers.BertForSequenceClassification(config)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_it_fits_its_model(recipe):
    manager = ScheduledModifierManager.from_yaml(str(recipe))
    (modifier,) = manager.pruning_modifiers
    model = model_for(recipe)
    selected = modifier.selects(model)
    assert all(one.param.ndim > 1 for one in selected)
    weights = [one.param.numel() for one in selected]
    assert sum(weights) > 0.5 * sum(p.numel() for p in model.parameters()) or recipe.stem == "bert"
    found = phases(modifier, model)
    assert found[-1]["dense"] == "all sparse" and modifier.end_epoch < manager.max_epochs
    if modifier.partition_type == "cyclic":
        sizes = [phase["weights"] for phase in found[: modifier.num_partitions]]
        assert sum(sizes) == sum(weights) and max(sizes) - min(sizes) <= max(weights)


def test_check_shows_what_is_dense_when(tmp_path):
    pytest.importorskip("timm")
    recipe = str(ROOT / "recipes/gap/resnet.yaml")
    arguments = ["recipe", "check", recipe, "--model", "timm:resnet18", "--steps-per-epoch", "5"]
    done = CliRunner(env={"COLUMNS": "150"}).invoke(main, arguments)
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any("update: partition 1 dense" in line for line in lines)
    assert any("end: all sparse" in line for line in lines)
    assert "80 all sparse 0 0 0.1000" in lines
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)["modifiers"]
    (plan,) = [one for one in found if "phases" in one]
    dense = [update["dense"] for update in plan["updates"]]
    assert dense == [*(f"partition {n % 4} dense" for n in range(8)), "all sparse"]
    assert [phase["epoch"] for phase in plan["phases"]] == [10.0 * n for n in range(9)]
    first, weights = plan["phases"][0], sum(phase["weights"] for phase in plan["phases"][:4])
    share = first["weights"] / weights
    assert first["density"] == pytest.approx(share + (1 - share) * 0.1, abs=1e-6)


def test_check_points_at_a_pattern_of_a_partition(tmp_path):
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(
        "m_modifiers:\n  - !GaPPruningModifier\n      params: __ALL_PRUNABLE__\n"
        "      final_sparsity: 0.5\n      num_steps: 2\n"
        "      partitions:\n        - ['re:a(']\n        - ['b']\n"
    )
    done = CliRunner().invoke(main, ["recipe", "check", str(recipe)])
    assert done.exit_code == 2 and "bad.yaml" in done.stderr and "re:a(" in done.stderr
