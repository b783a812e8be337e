from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from typing import Any

import pytest

from sparseml import __version__
from sparseml.optim import LoadedRecipe, add_framework_metadata, validate_metadata

BODY = "modifiers:\n  - !EpochRangeModifier\n    start_epoch: 0\n    end_epoch: 3\n"
OWN = f"__metadata__: {{a: 1, b: 2}}\n{BODY}"


def staged(*entries: str) -> str:
    return "".join(
        f"s{i}:\n  {entry}\n  modifiers:\n    - !EpochRangeModifier\n"
        f"      start_epoch: 0\n      end_epoch: {i}\n"
        for i, entry in enumerate(entries)
    )


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        (BODY, None, {"__metadata__": None}),
        (BODY, {"x": 1}, {"__metadata__": {"x": 1}}),
        (OWN, None, {"__metadata__": {"a": 1, "b": 2}}),
        (OWN, {"a": 3}, {"__metadata__": {"a": 3}}),
        (staged("v: 1", "v: 2"), None, {"s0": None, "s1": None}),
        (staged("v: 1", "v: 2"), {"x": 1}, {"s0": {"x": 1}, "s1": {"x": 1}}),
        (staged("v: 1", "v: 2"), {"s0": {"x": 1}, "s1": 2}, {"s0": {"x": 1}, "s1": 2}),
        (
            staged("__metadata__: {a: 1}", "__metadata__: {a: 2}"),
            None,
            {"s0": {"a": 1}, "s1": {"a": 2}},
        ),
    ],
)
def test_what_applies(text: str, given: Any, expected: dict[str, Any]) -> None:
    assert validate_metadata(given, text) == expected


def test_stages_share_the_entry_given() -> None:
    given = {"x": 1}
    result = validate_metadata(given, staged("v: 1", "v: 2"))
    assert result["s0"] is result["s1"] is given


def test_every_difference_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        validate_metadata({"a": 3, "c": 4}, OWN)
    assert [record.name for record in caplog.records] == ["root"] * 3
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "metadata of the recipe: 'a' is replaced: 1 by 3"
    assert "'b' is dropped" in messages[1] and "'c' is added" in messages[2]
    caplog.clear()
    validate_metadata({"a": 1, "b": 2}, OWN)
    assert not caplog.records


def test_metadata_in_some_stages_only() -> None:
    text = staged("__metadata__: {a: 1}", "v: 2")
    with pytest.raises(ValueError, match=r"all stages or none .* missing in 's1'"):
        validate_metadata(None, text)


def test_versions_are_noted(caplog: pytest.LogCaptureFixture) -> None:
    entry = {"a": 1}
    metadata = {"s0": entry, "s1": None, "s2": entry}
    assert add_framework_metadata(metadata, torch_version="9") is metadata
    versions = {
        "python_version": platform.python_version(),
        "sparseml_version": __version__,
        "torch_version": "9",
    }
    assert metadata["s1"] == {"framework_metadata": versions}
    assert metadata["s0"] == metadata["s2"] == {"a": 1, "framework_metadata": versions}
    assert not caplog.records
    add_framework_metadata({"s0": entry}, torch_version="10")
    assert "torch_version is overwritten: '9' by '10'" in caplog.text


def test_only_given_metadata_are_completed(load: Callable[..., LoadedRecipe]) -> None:
    versions = {"torch_version": "9"}
    assert load(OWN, framework_metadata=versions).metadata == {"__metadata__": {"a": 1, "b": 2}}
    given = {"a": 1, "b": 2}
    metadata = load(OWN, metadata=given, framework_metadata=versions).metadata
    assert metadata["__metadata__"]["framework_metadata"]["torch_version"] == "9"
    assert given == {"a": 1, "b": 2}
