"""The demo, with hardly any training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.shrink import fill_shrunk
from sparseml.pytorch.utils import tensor_list_sparsity
from sparseml.pytorch.utils.model import load_model

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "integrations" / "demo"
RECIPES = sorted((ROOT / "recipes" / "demo").glob("*.yaml"))

pytest.importorskip("timm")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def smoke(out: Path, seed: int) -> str:
    command = [sys.executable, str(DEMO / "digits.py"), "--smoke", "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, timeout=300, cwd=out.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where a smoke run left its results, and what it printed; ``.ci/run`` has done one."""
    if done := os.environ.get("SPARSEML_DEMO_DONE"):
        return Path(done), Path(f"{done}.txt").read_text()
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, smoke(out, seed=0)


def results(out: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["runs"]
    return runs


def test_every_method_is_in_the_table(finished: tuple[Path, str]) -> None:
    out, printed = finished
    found = results(out)
    assert [result["method"] for result in found] == [
        "dense",
        *["one-shot uniform"] * 2,
        *["one-shot global"] * 2,
        *["one-shot FastCAP"] * 2,
        *["one-shot CAP"] * 2,
        "gradual global",
        "structured",
    ]
    for result in found:
        assert f"{result['accuracy']:.2%}" in printed
        low, median, high = result["latency_ms"]
        assert 0 < low <= median <= high
    assert "\x1b" not in printed
    lines = printed.partition("What was gained")[2].splitlines()
    first = [line.strip().split("  ")[0] for line in lines]
    assert first[4:7] == ["dense", "zeros: one-shot CAP 90%", "smaller: structured"]
    assert "zero as slowly as by any other number" in " ".join(printed.split())


def test_sparsities_are_those_asked_for(finished: tuple[Path, str]) -> None:
    found = results(finished[0])
    asked = [0.0, *[0.5, 0.9] * 4, 0.9]
    found = found[:-1]  # the last is smaller, and has no zeros
    assert [result["sparsity"] for result in found] == pytest.approx(asked, abs=1e-4)
    sizes = {result["sparsity"]: result["compressed_bytes"] for result in found}
    assert sorted(sizes.values(), reverse=True) == [sizes[s] for s in sorted(sizes)]
    assert len({result["bytes"] for result in found}) == 1


def test_the_structured_run_ends_in_a_smaller_model(finished: tuple[Path, str]) -> None:
    out, printed = finished
    dense, *_, smaller = results(out)
    assert smaller["parameters"] < 0.6 * dense["parameters"]
    assert smaller["sparsity"] < 0.01
    assert "asked 45.0% of the operations, counted 4" in smaller["reached"]
    assert smaller["reached"] in printed
    report = json.loads((out / "report.json").read_text())["runs"][-1]
    told = " ".join(one["text"] for one in report["findings"])
    for text in ("Whole units were removed, ", "operations instead of"):
        assert text in told
    assert "sparseml.load_shrunk(" in (out / "report.html").read_text()
    flops = [report["variants"][name]["flops"]["dense"] for name in ("dense", "sparse")]
    assert flops[1] < 0.5 * flops[0]


def test_gradients_help_to_choose(finished: tuple[Path, str]) -> None:
    at_90 = {run["method"]: run["accuracy"] for run in results(finished[0]) if "90%" in run["name"]}
    assert at_90["one-shot CAP"] > at_90["one-shot global"] + 0.05
    assert at_90["one-shot FastCAP"] > at_90["one-shot uniform"] + 0.05


def test_what_a_run_leaves_behind(finished: tuple[Path, str]) -> None:
    out, _ = finished
    for name in ("results.json", "environment.json", "curves.png", "table.txt"):
        assert (out / name).stat().st_size > 0
    assert json.loads((out / "environment.json").read_text())["seed"] == 0
    for result in results(out):
        folder = out / result["name"].replace(" ", "_").replace("%", "")
        ScheduledModifierManager.from_yaml(folder / "recipe.yaml")
    lines = (out / "gradual_global_90" / "metrics.jsonl").read_text().splitlines()
    epochs = [entry for entry in map(json.loads, lines) if entry["tag"] == "epoch"]
    assert len(epochs) == 2
    assert epochs[-1]["values"]["sparsity"] == pytest.approx(0.9, abs=1e-4)


def test_the_demo_ends_with_the_report(finished: tuple[Path, str]) -> None:
    out, printed = finished
    assert printed.splitlines()[-1] == f"report: {out / 'report.html'}"
    report = json.loads((out / "report.json").read_text())
    for result, run in zip(results(out), report["runs"], strict=True):
        final = run["variants"].get("sparse", run["variants"]["dense"])
        assert run["name"] == result["name"]
        assert final["metrics"]["accuracy"] == result["accuracy"]
        assert final["storage"]["gzip"] == result["compressed_bytes"]
        assert final["latency"][0]["median_ms"] == result["latency_ms"][1]
        assert run["config"]["seed"] == 0
        assert set(run["missing"]) <= {
            "metrics.jsonl is missing: the run logged nothing while training"
        }
    gradual = report["runs"][-2]
    assert gradual["missing"] == []
    assert len(gradual["metrics"]["pruning_steps"]) > 1


def test_saved_models_are_the_measured_ones(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DEMO))
    import task
    import training

    digits, out = task.load_task(0), finished[0]
    for result in results(out):
        model = task.build_model(seed=5)
        if result["reached"]:
            fill_shrunk(model, out / result["name"] / "shrunk")
            assert training.accuracy(model, digits) == pytest.approx(result["accuracy"])
            continue
        folder = out / result["name"].replace(" ", "_").replace("%", "")
        (weights,) = folder.rglob("*.safetensors")
        load_model(weights, model, strict=True)
        assert training.accuracy(model, digits) == pytest.approx(result["accuracy"])
        pruned = [p for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2]
        assert tensor_list_sparsity(pruned) == pytest.approx(result["sparsity"])


@pytest.mark.usefixtures("warm")
def test_the_same_seed_gives_the_same_digits(finished: tuple[Path, str], tmp_path: Path) -> None:
    smoke(tmp_path / "again", seed=0)
    again = [result["accuracy"] for result in results(tmp_path / "again")]
    assert again == [result["accuracy"] for result in results(finished[0])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--seed", "some"], "invalid int value"),
        (["--out", __file__], "cannot be a directory"),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(DEMO))
    import digits

    with pytest.raises(SystemExit) as caught:
        digits.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid(path: Path) -> None:
    manager = ScheduledModifierManager.from_yaml(path)
    assert ScheduledModifierManager.from_yaml(str(manager)) == manager


def test_data_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEMO))
    import task

    digits = task.load_task(seed=3)
    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    assert float(digits.train_images.mean()) == pytest.approx(0, abs=1e-5)
    other = task.load_task(seed=4)
    assert not digits.test_labels.equal(other.test_labels)
    batches = [
        list(task.NoisyBatches(digits.train_images, digits.train_labels, 64, seed=1))
        for _ in range(2)
    ]
    assert len(batches[0]) == 1347 // 64
    assert all(a[0].equal(b[0]) and a[1].equal(b[1]) for a, b in zip(*batches, strict=True))


def test_gradients_come_from_the_batches_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEMO))
    import task
    import training

    digits = task.load_task(seed=3)
    build = training.grad_sampler(digits, seed=1)["data_loader_builder"]
    batches = task.NoisyBatches(digits.train_images, digits.train_labels, 64, seed=1)
    for (inputs, keywords, target), (images, labels) in zip(build(), batches, strict=True):
        assert len(inputs) == 1
        assert inputs[0].equal(images)
        assert keywords == {}
        assert target.equal(labels)
