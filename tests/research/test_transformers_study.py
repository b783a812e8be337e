"""The study of encoders on GLUE: its table, and the flags of the scripts that it calls."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("datasets")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "research"))
    monkeypatch.syspath_prepend(str(ROOT / "integrations/huggingface"))
    return importlib.import_module("transformers_study")


def test_the_table_stands_beside_what_was_published(study: ModuleType) -> None:
    def row(method: str, seed: int, sparsity: float, accuracy: float, ratio: float) -> dict:
        keys = {"model": "mini-sst2", "method": method, "seed": seed, "sparsity": sparsity}
        return {**keys, "accuracy": accuracy, "ratio": ratio}

    rows = [row("dense", 0, 0.0, 0.8, 0.0), row("two_four", 0, 0.5, 0.78, 0.48)]
    text = study.table([*rows, row("two_four", 1, 0.5, 0.80, 0.50)])
    assert "dense accuracy 80.00 (1), sampling error of 872 texts about 1.4" in text
    line = "| 2:4 | 0.4900 | 79.00 ± 1.41 (2) | -1.25 | .4795 | .8660/.8761 | .8731/.8773 | +0.14 |"
    assert line in text and "4x1" not in text


def test_a_run_is_read_back(study: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("epoch,eval/accuracy,eval/f1\n0,0.5,0.6\n1,0.7,0.8\n")
    layer = {"kind": "Linear", "zeros": 1, "parameters": 4}
    layers = [layer, {**layer, "zeros": 3}, {"kind": "Embedding", "zeros": 0, "parameters": 9}]
    (tmp_path / "result.json").write_text(json.dumps({"layers": layers}))
    assert study._found(tmp_path) == {"accuracy": 0.7, "f1": 0.8, "ratio": 0.5}


def test_the_flags_of_every_cell_are_those_of_the_script(study: ModuleType) -> None:
    from sparseml.run.settings import parse

    settings = importlib.import_module("no_trainer.settings").ScriptSettings
    for task in study.TASKS.values():
        found = [f"{task.flags} {task.dense}"]
        for name, cell in study.CELLS.items():
            found.append(f"{task.flags} {task.sparse} {cell.flags} {task.cells.get(name, '')}")
        for flags in found:
            parsed = parse(settings, ["--model_name_or_path", "x", *flags.split()])
            assert parsed.data.max_length in (64, 128)


def test_the_results_are_those_of_the_settings(study: ModuleType) -> None:
    file = ROOT / "research/results/transformers_glue.json"
    content = json.loads(file.read_text())
    assert content["settings"] == json.loads(json.dumps(study.SETTINGS))
    text = study.table(content["results"])
    assert file.with_suffix(".md").read_text() == text
    assert text in (ROOT / "research/README.md").read_text()
