"""Reading run directories that are whole, half there, or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparseml.report import NotARunError, Result, Run, find_runs, read_run, write_report
from sparseml.report.schema import validated


def edit(path: Path, name: str, change: Callable[[Any], Any]) -> None:
    file = path / name
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content)))


def test_a_whole_run_has_no_problems(run: Run) -> None:
    assert run.problems == []
    assert run.name == "Magnitude 80%"
    assert run.info.status == "finished"
    assert run.config == {"lr": 0.05, "seed": 0}
    assert run.recipe is not None
    assert "!MagnitudePruningModifier" in run.recipe
    assert run.schedule is not None
    (modifier,) = run.schedule.modifiers
    assert [update.step for update in modifier.updates] == [8, 12, 16, 20, 24]
    assert run.metrics.update_steps == [8, 12, 16, 20, 24]
    assert run.final is run.variant("sparse")


def test_runs_are_found_in_a_folder_by_age(runs: Path) -> None:
    for years in (("1998", "1999"), ("1999", "1998")):
        names = ["Magnitude_80", "GlobalMagnitude_90"]
        for name, year in zip(names, years, strict=True):
            edit(runs / name, "run.json", lambda info, year=year: {**info, "created": year})
        expected = [name for _, name in sorted(zip(years, names, strict=True))]
        assert [path.name for path in find_runs(runs)] == expected
    assert find_runs(runs / "Magnitude_80") == [runs / "Magnitude_80"]


def test_runs_are_found_however_deep_they_lie(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "output/one-shot/gm")
    shutil.copytree(runs / "Magnitude_80", tmp_path / "output/train/one")
    assert len(find_runs(tmp_path / "output")) == len(find_runs(runs)) + 1
    assert write_report(tmp_path / "output").html == tmp_path / "output/report.html"


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "missing", Path(__file__)):
        for function in (find_runs, read_run, write_report):
            with pytest.raises(NotARunError, match=wrong.name):
                function(wrong)


@pytest.mark.parametrize(
    "name",
    ["config.json", "environment.json", "recipe.yaml", "schedule.json", "metrics.jsonl",
     "result.json"],
)  # fmt: skip
def test_missing_files_are_told_and_the_rest_is_shown(run_path: Path, name: str) -> None:
    (run_path / name).unlink()
    run = read_run(run_path)
    assert any(problem.startswith(name) and "missing" in problem for problem in run.problems)
    html = write_report(run_path).html.read_text()
    assert f"{name} is missing" in html


@pytest.mark.parametrize("name", ["config", "environment", "schedule", "result"])
@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\x00", '{"a": ' * 50_000])
def test_malformed_files_are_told_and_the_rest_is_shown(
    run_path: Path, name: str, text: str
) -> None:
    (run_path / f"{name}.json").write_text(text)
    run = read_run(run_path)
    assert any(problem.startswith(f"{name}.json") for problem in run.problems)
    assert run.name == "Magnitude 80%"
    write_report(run_path)


def test_one_shot_runs_have_no_schedule(run_path: Path) -> None:
    (run_path / "schedule.json").unlink()
    (run_path / "metrics.jsonl").unlink()
    assert read_run(run_path).problems == []


def test_a_malformed_run_file_leaves_the_folders_name(run_path: Path) -> None:
    (run_path / "run.json").write_text("{")
    run = read_run(run_path)
    assert (run.name, run.info.status) == ("Magnitude_80", "unknown")


def test_a_later_format_is_told(run_path: Path) -> None:
    edit(run_path, "run.json", lambda info: {**info, "format": "sparseml-run/9"})
    assert any("sparseml-run/9" in problem for problem in read_run(run_path).problems)


def test_a_truncated_metrics_line_is_told(run_path: Path) -> None:
    file = run_path / "metrics.jsonl"
    text = file.read_text()
    file.write_text(text[:-20])
    run = read_run(run_path)
    assert any("1 of" in problem and "cut short" in problem for problem in run.problems)
    assert run.metrics.series["train/loss"]


def test_without_a_result_the_weights_are_counted(run_path: Path, run: Run) -> None:
    (run_path / "result.json").unlink()
    found = read_run(run_path)
    counted = {layer.name: layer.zeros for layer in found.result.layers}
    assert counted == {layer.name: layer.zeros for layer in run.result.layers}
    assert found.final is not None
    assert run.final is not None
    assert found.final.storage is not None
    assert run.final.storage is not None
    assert found.final.storage.bitmask == run.final.storage.bitmask


def test_without_a_result_and_with_broken_weights(run_path: Path) -> None:
    (run_path / "result.json").unlink()
    (run_path / "model.safetensors").write_bytes(b"not weights")
    run = read_run(run_path)
    assert run.result.layers == []
    assert any("model.safetensors cannot be read" in problem for problem in run.problems)
    (run_path / "model.safetensors").unlink()
    assert any("no model.safetensors" in problem for problem in read_run(run_path).problems)
    write_report(run_path)


LATENCY = {
    "batch_size": 1,
    "device": "cpu",
    "rounds": 9,
    "median_ms": 1.0,
    "lower_quartile_ms": 1.0,
    "upper_quartile_ms": 1.0,
    "samples_per_second": 1000,
}


@pytest.mark.parametrize(
    ("content", "left", "told"),
    [
        ({"layers": 3, "notes": ["a"]}, {"notes": ["a"]}, ["layers"]),
        ({"variants": {"dense": 1, "sparse": {"nonzero": 2}}}, {}, ["variants.dense"]),
        (
            {"layers": [{"name": "a", "parameters": 2, "zeros": -1}, {"name": "b"}]},
            {"layers": []},
            ["layers.0.zeros", "layers.1: lacks 'parameters', lacks 'zeros'"],
        ),
        (
            {"variants": {"sparse": {"metrics": {"a": "x", "b": 1}}}},
            {},
            ["variants.sparse.metrics.a"],
        ),
    ],
)
def test_malformed_parts_are_left_out(content: Any, left: dict[str, Any], told: list[str]) -> None:
    result, problems = validated(Result, content)
    assert result is not None
    for start in told:
        assert any(problem.startswith(start) for problem in problems)
    assert result.model_dump(include=set(left)) == left


def test_of_many_list_items_the_right_ones_are_left_out() -> None:
    items = [LATENCY | {"rounds": number} for number in range(30)]
    for wrong in (3, 11, 20):
        del items[wrong]["device"]
    items[12]["median_ms"] = "slow"
    result, problems = validated(Result, {"variants": {"sparse": {"latency": items}}})
    assert result is not None
    kept = [latency.rounds for latency in result.variants["sparse"].latency]
    assert kept == [number for number in range(30) if number not in (3, 11, 12, 20)]
    assert len(problems) >= 4


def test_what_others_add_is_kept(run_path: Path) -> None:
    edit(run_path, "result.json", lambda result: {**result, "energy": {"joule": 3}})
    report = json.loads(write_report(run_path).json.read_text())
    assert report["runs"][0]["energy"] == {"joule": 3}
