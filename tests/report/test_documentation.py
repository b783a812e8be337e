"""What docs/run_directory.md says is so."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.report import find_runs, read_run, schema, write_report
from sparseml.report.run_directory import CHECKPOINTS, REPORT_FILES, RUN_FILES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "run_directory.md").read_text("utf-8")
RECIPE = """
modifiers:
  - !MagnitudePruningModifier
    params: ['re:.*weight']
    init_sparsity: 0.0
    final_sparsity: 0.5
    start_epoch: 0.0
    end_epoch: 1.0
    update_frequency: 0.5
"""


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dense = nn.Linear(4, 4)
    model = copy.deepcopy(dense)
    names = {
        "dense": dense,
        "model": model,
        "images": torch.ones(2, 4),
        "steps": 2,
        "sgd": torch.optim.SGD(model.parameters(), lr=0.1),
        "manager": ScheduledModifierManager.from_yaml(RECIPE),
    }
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(example, "run_directory.md", "exec"), names)  # noqa: S102
    run = read_run(tmp_path / "runs" / "gradual")
    assert run.info.status == "finished"
    assert run.config == {"lr": 0.1, "seed": 0}
    # nothing was trained, so nothing was logged
    assert run.problems == ["metrics.jsonl is missing: the run logged nothing while training"]
    assert run.final is not None
    assert run.final.metrics == {"accuracy": 0.97}
    assert len(run.final.latency) == 1
    assert write_report(find_runs("runs")).html.exists()


def test_every_file_is_described() -> None:
    for name in (*RUN_FILES.values(), *REPORT_FILES, f"{CHECKPOINTS}/", "model.safetensors"):
        assert name in PAGE


def test_every_key_is_described() -> None:
    for model in (
        schema.RunInfo, schema.Schedule, schema.PruningSchedule, schema.ScheduledUpdate,
        schema.Variant, schema.Storage, schema.Flops, schema.Latency, schema.Layer, schema.Result,
    ):  # fmt: skip
        for key in model.model_fields:
            assert re.search(rf'`"?(variants\.)?{key}\b|"{key}"', PAGE), f"{model.__name__}.{key}"
