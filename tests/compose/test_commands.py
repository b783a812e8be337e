"""``sparseml compose``: from recipes to a table of models, and its exit codes."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from sparseml.cli import main

from .conftest import ATTENTION, DATA, LINEAR, MODEL

pytestmark = pytest.mark.usefixtures("warm")

RECIPE = """
modifiers:
  - !MagnitudePruningModifier
      params: ['re:encoder.layers.*linear.*weight']
      init_sparsity: 0.05
      final_sparsity: {sparsity}
      start_epoch: 0.0
      end_epoch: 1.0
      update_frequency: 1.0
"""
FINISH = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 1.0}
  - !SetLearningRateModifier {learning_rate: 0.001, start_epoch: 0.0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compose")


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def call(*words, code=0):
        done = CliRunner().invoke(main, ["compose", *map(str, words)])
        assert done.exit_code == code, done.output + str(done.exception)
        return done.output

    return call


@pytest.fixture
def planned(run, folder, weights):
    for name, sparsity in (("half", 0.5), ("most", 0.8)):
        (folder / f"{name}.yaml").write_text(RECIPE.format(sparsity=sparsity))
    (folder / "finish.yaml").write_text(FINISH)
    words = ["plan", "--model", MODEL, "--weights", weights, "--out", "plan.json", "--recipes"]
    return run(*words, "half.yaml", "most.yaml", "--direct-epochs", 4, "--composed-epochs", 2)


def test_a_whole_way(run, planned, folder):
    assert "2 configurations ask for 8 blocks, 8 of them distinct" in planned
    assert "it pays from" in planned
    assert "8 blocks pruned, 0 were there" in run(
        "prune", "--plan", "plan.json", "--store", "store"
    )
    small = ["--data", DATA, "--batch-size", 8]
    told = run("tune", "--store", "store", *small, "--epochs", 1, "--lr", 3e-3)
    assert told.index("it pays if") < told.index("8 blocks to tune in 1 passes")
    assert "0 blocks to tune in 0 passes, 8 are there" in run(
        "tune", "--store", "store", *small, "--epochs", 1, "--lr", 3e-3
    )
    run("assemble", "--store", "store", "--config", "half", "--out", "half")
    assert (folder / "half/masks.safetensors").exists()
    words = ["finetune", "--store", "store", "--config", "all", *small, "--recipe", "finish.yaml"]
    run(*words)
    again = run(*words, "--resume")
    assert "half: done before" in again and "most: done before" in again
    found = json.loads(run("report", "--store", "store", "--json"))
    assert found["reuse"] == {"requests": 8, "distinct": 8, "factor": 1.0}
    assert [row["name"] for row in found["configurations"]] == ["half", "most"]
    assert all(row["metrics"]["accuracy"] > 0.3 for row in found["configurations"])
    assert any(row["pareto"] for row in found["configurations"])
    text = run("report", "--store", "store")
    assert "| half | " in text and (folder / "store/report.md").exists()
    done = CliRunner().invoke(main, ["report", "store/models", "--out", "page"])
    assert done.exit_code == 0, done.output


def test_a_recipe_says_how_to_tune(run, planned, folder):
    (folder / "tune.yaml").write_text(
        "modifiers:\n  - !BlockTuningModifier {store: s, start_epoch: 0.0, end_epoch: 1.0, "
        "blocks: [half], lr: 0.003, loss: cosine}"
    )
    words = ["--plan", "plan.json", "--store", "other", "--data", DATA, "--batch-size", 8]
    told = run("tune", *words, "--recipe", "tune.yaml", "--max-memory", "300kB")
    assert "4 blocks to tune in 2 passes" in told
    run("assemble", "--store", "other", "--config", "half", "--out", "cosine")
    assert "is not tuned yet" in run(
        "assemble", "--store", "other", "--config", "most", "--out", "x", code=2
    )
    run("assemble", "--store", "other", "--config", "most", "--source", "pruned", "--out", "p")


def test_legacy_configurations(run, folder, weights):
    rates = [{ATTENTION[0]: 0.5, LINEAR[0]: 0.2}, {ATTENTION[0]: 1, LINEAR[0]: 0.5}]
    (folder / "conf.json").write_text(json.dumps(rates))
    words = ["plan", "--model", MODEL, "--weights", weights, "--legacy-conf", "conf.json"]
    run(*words, "--out", "legacy.json", "--legacy-plan", "conf_prune.json")
    exported = json.loads((folder / "conf_prune.json").read_text())
    assert exported == {ATTENTION[0]: [0.5], LINEAR[0]: [0.2, 0.5]}
    names = [
        one["name"] for one in json.loads((folder / "legacy.json").read_text())["configurations"]
    ]
    assert names == ["conf_0", "conf_1"]
    run(*words, "--out", "nothing.json", "--estimate")
    assert not (folder / "nothing.json").exists()


@pytest.mark.parametrize("density", [0, -1, 2, "NaN", "half"])
def test_property_3_densities_out_of_range_exit_with_2(run, folder, density):
    text = json.dumps([{LINEAR[0]: density}]).replace('"NaN"', "NaN")
    (folder / "bad.json").write_text(text)
    told = run("plan", "--model", MODEL, "--legacy-conf", "bad.json", "--out", "x.json", code=2)
    assert "a density must be above 0 and at most 1" in told and not (folder / "x.json").exists()


def test_mistakes_exit_with_2(run, planned):
    both = run("plan", "--model", MODEL, "a.yaml", "--out", "x", code=2)
    assert "either --recipes or --legacy-conf" in both
    for words, told in (
        (["finetune", "--config", "half"], "--data must name"),
        (["finetune", "--config", "small", "--data", DATA], "no configuration 'small', only half"),
        (["tune", "--data", "sparseml.compose.sorting:mode"], "did you mean"),
        (["tune", "--data", MODEL], "must have training(epoch)"),
        (["explore", "--data", DATA, "--objective", "good"], "must read like"),
    ):
        rest = ["--store", "mistakes", "--plan", "plan.json"]
        assert told in run(words[0], *rest, *words[1:], code=2)
    assert "no such plan" in run("prune", "--store", "nowhere", code=2)


def test_property_16_what_was_changed_exits_with_3(run, planned, folder):
    other = ["--model", MODEL]  # with new weights
    told = run("prune", "--plan", "plan.json", "--store", "fresh", *other, code=3)
    assert "the plan was made for another model" in told
    text = (folder / "plan.json").read_text()
    (folder / "edited.json").write_text(text.replace('"most"', '"more"', 1))
    assert "was edited" in run("prune", "--plan", "edited.json", "--store", "fresh", code=3)
    run("prune", "--plan", "plan.json", "--store", "fresh")
    (block,) = list((folder / "fresh/pruned").glob("*.safetensors"))[:1]
    block.write_bytes(block.read_bytes()[:-1])
    words = ["tune", "--store", "fresh", "--data", DATA, "--batch-size", 8, "--epochs", 1]
    assert "damaged, cut or altered" in run(*words, code=3)


@pytest.mark.slow
def test_exploring_in_processes(run, planned):
    run("prune", "--plan", "plan.json", "--store", "explored")
    words = ["explore", "--store", "explored", "--data", DATA, "--batch-size", 8]
    words += ["--source", "pruned", "--epochs", 1]
    told = run(*words, "--objective", "accuracy>=0.05", "--parallel", 2)
    assert "smallest: most" in told
    assert "no configuration meets accuracy>=1.5" in run(
        *words, "--objective", "accuracy>=1.5", code=4
    )


def test_composing_recipes_is_still_chaining_them(folder):
    done = CliRunner().invoke(main, ["recipe", "compose", "--help"])
    assert done.exit_code == 0
