"""The commands of ``integrations/timm/README.md`` and of ``docs/image_models.md``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.timm import GLUE
from sparseml.utils.ready_recipes import ready_recipes

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "integrations/timm/README.md").read_text()
PAGES = README + (ROOT / "docs/image_models.md").read_text()
COMMANDS = re.findall(r"^\$ (.*)$", PAGES, re.MULTILINE)
RUNS = [command for command in COMMANDS if re.search(r"\bsparseml (prune|train) ", command)]


@pytest.mark.parametrize("command", RUNS)
def test_flags_recipes_and_variables_are_there(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    kind, *flags = words[words.index("sparseml") + 1 :]
    settings: Any
    if kind == "train":
        settings = GLUE.training_settings(flags)
    else:
        settings = GLUE.one_shot_settings(flags)
        assert settings.sweep.sparsities
    assert settings.model.model == "test_resnet" and settings.data.data_dir == "data/digits"
    manager = ScheduledModifierManager.from_yaml(
        settings.run.sparseml_recipe, recipe_variables=settings.run.recipe_args
    )
    assert manager.max_epochs > 0


def test_the_page_names_only_what_there_is() -> None:
    assert len(RUNS) >= 6
    paths = re.findall(r"(?:research|recipes|integrations|configs)/[\w./+-]+\w", README)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path
    assert set(re.findall(r"recipe:(timm/[\w/+]+)", README)) <= ready_recipes().keys()
