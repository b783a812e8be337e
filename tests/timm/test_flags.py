"""The flags of both runs: none is lost, and none means anything else than it did."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sparseml.run.settings import Settings, leaves, parser_for
from sparseml.timm import OneShotSettings, TrainingSettings

# by script and setting, as the scripts had them before settings became dataclasses
BEFORE = json.loads(Path(__file__).with_name("flags.json").read_text(encoding="utf-8"))
KINDS = {"one_shot_pruning.py": OneShotSettings, "sparse_training.py": TrainingSettings}


def _flags() -> list[Any]:
    return [
        pytest.param(KINDS[script], name, flag, id=f"{script}-{name}")
        for script, flags in BEFORE.items()
        for name, flag in flags.items()
    ]


@pytest.mark.parametrize("script", list(KINDS))
def test_there_are_as_many(script: str) -> None:
    assert {leaf.name for leaf in leaves(KINDS[script])} == set(BEFORE[script])


@pytest.mark.parametrize(("kind", "name", "before"), _flags())
def test_a_flag_is_what_it_was(kind: type[Settings], name: str, before: dict[str, Any]) -> None:
    action = next(action for action in parser_for(kind)._actions if action.dest == name)
    assert set(before["options"]) <= set(action.option_strings)
    default = list(action.default) if isinstance(action.default, tuple) else action.default
    assert default == before["default"]
    assert (action.nargs, action.required) == (before.get("nargs"), before.get("required", False))
    assert getattr(action.type, "__name__", None) == before.get("type")
    assert list(action.choices or []) == before.get("choices", [])
    metavar = list(action.metavar) if isinstance(action.metavar, tuple) else action.metavar
    assert metavar == before.get("metavar")
    if "help" in before:
        assert (action.help or "").replace(" (default: %(default)s)", "") == before["help"]


@pytest.mark.parametrize(("kind", "name", "before"), _flags())
def test_ranges_and_what_they_change_are_what_they_were(
    kind: type[Settings], name: str, before: dict[str, Any]
) -> None:
    leaf = next(leaf for leaf in leaves(kind) if leaf.name == name)
    assert leaf.flag.broken_limit(math.nan) == before.get("limit")
    if kind is TrainingSettings:
        assert leaf.flag.changes == before["changes"]
