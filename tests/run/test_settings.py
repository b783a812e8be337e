"""Settings as dataclasses, and what follows from their fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sparseml.run import RunError
from sparseml.run.settings import Group, Settings, flag, leaves, parse, parser_for


@dataclass
class Oven(Group):
    """A group with a setting of each type."""

    TITLE = "oven"
    DESCRIPTION = "where it happens"

    heat: int = flag(help="in degrees", also=("-t", "--temperature"), at_least=50, at_most=300)
    fan: bool = flag(False, changes="nothing")
    light: bool = flag(True, paired=True)
    program: str | None = flag(None, choices=("top", "bottom"), changes="optimizer")
    minutes: Sequence[float] = flag((1.5, 2.0), nargs=2, above=0)
    notes: dict[str, Any] = flag({}, names=("--note",))
    left_over: float = flag(0.1, at_least=0, below=1)


@dataclass(kw_only=True)
class Baking(Settings):
    """A run."""

    DEFAULTS = {"left_over": 0.2}

    oven: Oven
    loud: bool = flag(False)
    names: list[str] = field(default_factory=list)


def test_flags_follow_from_the_fields() -> None:
    settings = parse(Baking, ["-t", "200", "--fan", "--no-light", "--minutes", "3", "4"])
    oven = settings.oven
    assert (oven.heat, oven.fan, oven.light, oven.program) == (200, True, False, None)
    assert list(oven.minutes) == [3.0, 4.0] and oven.left_over == 0.2 and not settings.loud
    assert settings.given == {"heat", "fan", "light", "minutes"}
    named = parse(Baking, ["--heat=99", "--note", "a=1", "b=x", "c=2=3", "--loud"])
    assert named.oven.notes == {"a": 1, "b": "x", "c": "2=3"} and named.loud
    assert Baking(oven=Oven(heat=1)).oven.notes is not Oven(heat=1).notes


def test_all_settings_are_named_once_and_in_order() -> None:
    settings = Baking(oven=Oven(heat=180))
    names = ["config", "heat", "fan", "light", "program", "minutes", "notes", "left_over", "loud"]
    assert list(settings.values()) == names == [leaf.name for leaf in leaves(Baking)]
    assert settings.values("optimizer") == {"program": None}
    assert set(settings.values()) - set(settings.values("result", "optimizer")) == {"config", "fan"}


def test_the_help_has_groups(capsys: pytest.CaptureFixture[str]) -> None:
    shown = parser_for(Baking, "Bakes.", "sparseml bake").format_help()
    assert "usage: sparseml bake" in shown and "Bakes." in shown
    assert "oven:\n  where it happens" in shown and "-t HEAT, --heat HEAT, --temperature" in shown
    with pytest.raises(SystemExit) as stopped:
        parse(Baking, ["--heat", "99", "--note", "a"])
    assert stopped.value.code == 2
    assert "argument --note: must be key=value, found 'a'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--heat", "49"], "--heat must be from 50 to 300, found 49"),
        (["--temperature", "301"], "--heat must be from 50 to 300, found 301"),
        (["-t", "60", "--minutes", "1", "inf"], "--minutes must be greater than 0, found inf"),
        (["-t", "60", "--left-over", "1"], "--left-over must be at least 0 and less than 1"),
        (["-t", "60", "--left-over", "nan"], "found nan"),
    ],
)
def test_numbers_out_of_range(flags: list[str], expected: str) -> None:
    with pytest.raises(RunError, match=expected):
        parse(Baking, flags)


def test_limits_in_words() -> None:
    limit = {leaf.name: leaf.flag.broken_limit for leaf in leaves(Baking)}
    assert limit["heat"](50) is None and limit["fan"](math.inf) is None
    assert limit["minutes"](math.inf) == "greater than 0"


def test_files_give_defaults_by_any_name_of_a_flag(tmp_path: Path) -> None:
    file = tmp_path / "baking.yaml"
    file.write_text("temperature: 99\nfan: true\nnote: {a: 1}\nunused: 3\n")
    settings = parse(Baking, ["-c", str(file), "--loud"], ignored={"unused": ""})
    assert (settings.oven.heat, settings.oven.fan, settings.config) == (99, True, str(file))
    assert settings.oven.notes == {"a": 1} and settings.given == {"config", "loud"}
    with pytest.raises(RunError, match=r"no setting 'unused' \(found 3\)"):
        parse(Baking, ["-c", str(file)])
