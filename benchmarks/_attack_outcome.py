"""What runs leave behind, in a form to be compared."""

from __future__ import annotations

import argparse
import csv
import io
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from kill_resume import same

# what the clock, the place and the command line say
_UNLIKE = (
    *("per_second", "runtime", "time", "latency", "created", "finished", "resume", "overwrite"),
    # the Trainer and fairseq begin these anew when they go on
    *("train_loss", "problem_type", "optimizer_history", "extra_state.metrics"),
)
_UNREAD = ("environment.json", "report.html", "report.md", "report.json", "training_args.bin")
_PASSED = (".lock", ".previous", ".damaged", "error.txt")


def outcome(
    folder: Path,
    parts: bool = True,
    only: tuple[str, ...] = ("",),
    but: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return what a finished run has left, file by file, without what time and place say.

    :param parts: whether what a killed process was about to write counts
    :param only: how the names of the files end that are read
    :param but: parts of the names of entries that differ between equal runs of this kind
    """
    passed = _PASSED if parts else (*_PASSED, ".part")
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name.endswith(only) and not path.name.endswith(passed):
            found[str(path.relative_to(folder))] = _content(path, (*_UNLIKE, *but))
    return found


def _content(path: Path, but: tuple[str, ...]) -> Any:
    if path.name in _UNREAD:
        return None
    if path.suffix in (".pth", ".pt"):
        with torch.serialization.safe_globals([argparse.Namespace]):
            try:
                return _like(torch.load(path, weights_only=True), but)
            except Exception:  # as states of random generators, which hold arrays
                return path.read_bytes()
    if path.suffix == ".json":
        return _like(json.loads(path.read_text()), but)
    if path.suffix == ".jsonl":
        return [_like(json.loads(line), but) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        return [_like(row, but) for row in csv.DictReader(io.StringIO(path.read_text()))]
    if path.suffix == ".yaml":
        try:
            return _like(yaml.safe_load(path.read_text()), but)
        except yaml.YAMLError:  # a recipe
            pass
    return path.read_bytes()


def _like(value: Any, but: tuple[str, ...], place: str = "") -> Any:
    """Return plain data without entries that differ between equal runs."""
    if isinstance(value, dict):
        places = {key: f"{place}.{key}" for key in value}
        kept = [key for key in value if not any(part in places[key] for part in but)]
        return {key: _like(value[key], but, str(key)) for key in kept}
    if isinstance(value, (list, tuple)):
        return [_like(one, but) for one in value]
    if isinstance(value, str) and "/out/" in value:  # the place of a file that was written
        return value.rpartition("/out/")[2]
    return value


def differences(found: dict[str, Any], expected: dict[str, Any], more: bool = False) -> list[str]:
    """Return the files in which two outcomes differ.

    :param more: whether further files may be there, as checkpoints of where a run was stopped
    """
    lacking = [f"no {name}" for name in expected if name not in found]
    common = [name for name in expected if name in found]
    other = [f"{name}{unlike(found[name], expected[name])}" for name in common]
    extra = [f"also {name}" for name in found if name not in expected]
    if more:
        extra = [name for name in extra if name.endswith(".part")]
    return lacking + [one for one in other if not one.endswith("=")] + extra


def unlike(one: Any, other: Any) -> str:
    """Return where two nested states differ first; ``=`` if they are equal to the last bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        found = (f"[{key!r}]{unlike(one.get(key), other.get(key))}" for key in keys)
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return f" has {len(one)} entries, not {len(other)}"
        found = (f"[{at}]{unlike(a, b)}" for at, (a, b) in enumerate(zip(one, other, strict=True)))
    elif same(one, other):
        return "="
    else:
        return " differs" if isinstance(one, (Tensor, bytes)) else f" is {one!r}, not {other!r}"
    return next((place for place in found if not place.endswith("=")), "=")
