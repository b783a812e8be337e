"""What ``docs/running.md`` shows."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sparseml.run import Processes, load_recipe, masks_in_force, masks_of_run, prune, train
from sparseml.run.settings import parse

PAGE = (Path(__file__).resolve().parents[2] / "docs/running.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_settings_are_as_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("shown")
    monkeypatch.setitem(sys.modules, "shown", module)  # where annotations are looked up
    exec(next(block for block in BLOCKS if "OneShotSettings" in block), vars(module))  # noqa: S102
    settings = parse(
        module.OneShotSettings, ["--corpus", "a.txt", "--recipe", "r", "--sparsities", "0.5"]
    )
    assert (settings.texts.corpus, settings.texts.length) == ("a.txt", 128)
    assert settings.sweep.sparsities == [0.5]
    assert "workers" not in settings.values("result")


def test_a_glue_of_ones_own_is_run(
    monkeypatch: pytest.MonkeyPatch, glue: Any, flags: list[str]
) -> None:
    package: Any = ModuleType("my_package.glue")
    package.GLUE = glue
    monkeypatch.setitem(sys.modules, "my_package.glue", package)
    monkeypatch.setattr(sys, "argv", ["run", *flags, "--latency-rounds", "0"])
    with pytest.raises(SystemExit) as done:
        exec(next(block for block in BLOCKS if "my_package" in block), {})  # noqa: S102
    assert done.value.code == 0 and Path("out/run/results.csv").is_file()


def test_the_commands_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparseml.timm import GLUE

    commands = re.findall(r"^\$ sparseml (\w+) (.*)$", PAGE, re.MULTILINE)
    assert [name for name, _ in commands] == ["prune", "train"]
    for name, flags in commands:
        given = flags.replace("--config my_settings.yaml", "").split()
        read = GLUE.one_shot_settings if name == "prune" else GLUE.training_settings
        assert read(given).run.sparseml_recipe.startswith("recipe:timm/")


def test_masks_are_carried_as_shown(flags: list[str], glue: Any) -> None:
    assert train([*flags, "--output", ".", "--experiment", "out"], glue) == 0
    model = glue.open_session(None, Processes()).model
    manager, kept = load_recipe("recipe.yaml", None), masks_of_run("out")
    scope = {"model": model, "manager": manager, "steps_per_epoch": 4}
    scope["optimizer"] = torch.optim.SGD(model.parameters(), 0.1)
    exec(next(block for block in BLOCKS if "carry_masks" in block), scope)  # noqa: S102
    masks = masks_in_force(manager)
    assert kept.keys() == masks.keys() and len(kept) == 2
    for name, mask in masks.items():
        assert torch.equal(mask != 0, kept[name]) and 0 < mask.mean() < 1
        assert bool((model.get_parameter(name)[mask == 0] == 0).all())


def test_the_page_of_a_finished_run_says_so(
    monkeypatch: pytest.MonkeyPatch, glue: Any, flags: list[str]
) -> None:
    flags = [flag for flag in flags if flag != "--no-report"]
    assert train(flags, glue) == 0
    page = Path("out/run/report.md").read_text(encoding="utf-8")
    assert page.startswith("# run\n\nfinished")
    assert "has not finished" not in page
    assert prune([*flags, "--overwrite", "--sparsities", "0.5", "--latency-rounds", "0"], glue) == 0
    assert "# run sparsity 0.5\n\nfinished" in Path("out/run/sparsity=0.5/../report.md").read_text()


def test_reports_are_told_what_the_session_knows(
    monkeypatch: pytest.MonkeyPatch, glue: Any, flags: list[str]
) -> None:
    open_session = glue.open_session

    def telling(*given: Any) -> Any:
        session = open_session(*given)
        session.evaluated_samples, session.weights_loaded = 32, False
        return session

    monkeypatch.setattr(glue, "open_session", telling)
    assert train(flags, glue) == 0
    variants = json.loads(Path("out/run/result.json").read_text())["variants"]
    assert [variants[name]["samples"] for name in ("dense", "sparse")] == [32, 32]
    assert variants["dense"]["trained"] is False
