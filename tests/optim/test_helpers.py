from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sparseml.optim import (
    check_if_staged_recipe,
    evaluate_recipe_yaml_str_equations,
    load_global_recipe_variables_from_yaml,
    load_recipe_yaml_str_no_classes,
    rewrite_recipe_yaml_string_with_classes,
    update_recipe_variables,
)

RECIPE = """\
num_epochs: 10.0
rate: 1e-3
pruning_modifiers:
  - !GMPruningModifier
    params: ["re:.*weight", a.b]
    end_epoch: eval(num_epochs)
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 3}
training_modifiers:
    - !EpochRangeModifier
        start_epoch: 0.0
    - !Bare
"""
CONTAINER = {
    "num_epochs": 10.0,
    "rate": 0.001,
    "pruning_modifiers": [
        {
            "OBJECT.GMPruningModifier": None,
            "params": ["re:.*weight", "a.b"],
            "end_epoch": "eval(num_epochs)",
        },
        {"OBJECT.EpochRangeModifier": {"start_epoch": 0.0, "end_epoch": 3}},
    ],
    "training_modifiers": [
        {"OBJECT.EpochRangeModifier": {"start_epoch": 0.0}},
        {"OBJECT.Bare": None},
    ],
}


def test_tags_become_keys() -> None:
    assert load_recipe_yaml_str_no_classes(RECIPE) == CONTAINER


def test_keys_become_tags() -> None:
    text = rewrite_recipe_yaml_string_with_classes(CONTAINER)
    assert text == (
        "num_epochs: 10.0\n"
        "pruning_modifiers:\n"
        "- !GMPruningModifier\n"
        "  end_epoch: eval(num_epochs)\n"
        "  params:\n"
        "  - re:.*weight\n"
        "  - a.b\n"
        "- !EpochRangeModifier\n"
        "    end_epoch: 3\n"
        "    start_epoch: 0.0\n"
        "rate: 0.001\n"
        "training_modifiers:\n"
        "- !EpochRangeModifier\n"
        "    start_epoch: 0.0\n"
        "- !Bare\n"
    )
    assert load_recipe_yaml_str_no_classes(text) == CONTAINER


@pytest.mark.parametrize(
    "text",
    ["!Name\na: 1\n", "!Name\n    a: 1\n", "!Name {a: 1}\n", "!Name\n", "a:\n- !Name {}\n"],
)
def test_round_trip_of_single_modifiers(text: str) -> None:
    container = load_recipe_yaml_str_no_classes(text)
    again = rewrite_recipe_yaml_string_with_classes(container)
    assert load_recipe_yaml_str_no_classes(again) == container


@pytest.mark.parametrize("value", ["x\nOBJECT.Evil: null\ny", "OBJECT.Evil:", "!Evil", "- !Evil"])
def test_text_that_looks_like_a_tag_stays_text(value: str) -> None:
    container = {"text": value, "list": [value, {"deep": value}]}
    text = rewrite_recipe_yaml_string_with_classes(container)
    assert load_recipe_yaml_str_no_classes(text) == container
    assert yaml.safe_load(text) == container


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), ("-2e-1", -0.2), ("1.5e3", 1500.0), (".5", 0.5), ("1.", 1.0),
        ("+1_000", 1000), ("0x1F", 31), ("010", 8), (".inf", float("inf")), ("2:4", "2:4"),
        ("12:30:45", "12:30:45"), ("2020-01-02", "2020-01-02"), ("yes", True), ("off", False),
        ("null", None), ("~", None), ("'1e-3'", "1e-3"), ("!!str 5", "5"), ("e5", "e5"),
        ("1e", "1e"), ("re:layers.0", "re:layers.0"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars(text: str, value: Any) -> None:
    loaded = load_recipe_yaml_str_no_classes(f"key: {text}\n")["key"]
    assert loaded == value and isinstance(loaded, type(value))
    rewritten = rewrite_recipe_yaml_string_with_classes({"key": value})
    assert load_recipe_yaml_str_no_classes(rewritten) == {"key": value}
    # what other readers of YAML see is the same
    assert yaml.safe_load(rewritten) == {"key": value}


def test_aliases_and_merges() -> None:
    text = "base: &b {x: 1, y: 2}\nsame: *b\nmore: {<<: *b, y: 3}\nboth: {<<: [{x: 7}, *b]}\n"
    assert load_recipe_yaml_str_no_classes(text) == {
        "base": {"x": 1, "y": 2},
        "same": {"x": 1, "y": 2},
        "more": {"x": 1, "y": 3},
        "both": {"x": 7, "y": 2},
    }


@pytest.mark.parametrize(
    ("text", "staged"),
    [
        ("modifiers: []\n", False),
        ("a: 1\nb: {c: 1}\n", False),
        ("stage_0:\n  some_modifiers: []\n", True),
        ("modifiers: []\nstage_0: {modifiers: []}\n", True),
        ("a: {b: {modifiers: []}}\n", False),
    ],
)
def test_stages(text: str, staged: bool) -> None:
    assert check_if_staged_recipe(load_recipe_yaml_str_no_classes(text)) is staged


def test_global_variables(tmp_path: Path) -> None:
    text = "a: eval(b)\nb: 2\nl: [1]\nmy_modifiers: []\nmodifier: 3\nstage: {modifiers: [], c: 1}\n"
    expected = {"a": "eval(b)", "b": 2, "l": [1]}
    assert load_global_recipe_variables_from_yaml(text) == expected
    (tmp_path / "r.md").write_text(f"---\n{text}---\n")
    assert load_global_recipe_variables_from_yaml(tmp_path / "r.md") == expected


STAGED = """\
a: 1
stage_0:
  a: 2
  b: 3
  modifiers:
    - !XX
      p: eval(a)
stage_1:
  b: 4
  modifiers:
    - !XX
      p: 1
"""


def test_variables_are_replaced_wherever_they_occur() -> None:
    updated = load_recipe_yaml_str_no_classes(update_recipe_variables(STAGED, {"a": 7, "b": "q"}))
    assert updated["a"] == updated["stage_0"]["a"] == 7
    assert updated["stage_0"]["b"] == updated["stage_1"]["b"] == "q"
    assert "a" not in updated["stage_1"]
    assert updated["stage_0"]["modifiers"] == [{"OBJECT.XX": None, "p": "eval(a)"}]


def test_an_override_may_be_an_expression() -> None:
    text = update_recipe_variables("a: 1\nb: 2\n", {"a": "eval(b * 3)"})
    assert load_recipe_yaml_str_no_classes(evaluate_recipe_yaml_str_equations(text))["a"] == 6


@pytest.mark.parametrize("name", ["c", "stage_0", "modifiers", "p", "OBJECT.XX"])
def test_only_variables_can_be_replaced(name: str) -> None:
    with pytest.raises(ValueError, match=f"no variable '{name}'"):
        update_recipe_variables(STAGED, {name: 1})


def test_variables_of_every_kind_can_be_replaced() -> None:
    text = "l: [1]\ne: []\nd: {x: 1}\nn: null\nmodifiers: []\n"
    new = {"l": ["a"], "e": [1], "d": {"y": [2]}, "n": 3.5}
    updated = load_recipe_yaml_str_no_classes(update_recipe_variables(text, new))
    assert updated == {**new, "modifiers": []}


def test_evaluated_text() -> None:
    text = "n: 10.0\nm: eval(n * 0.2)\nmodifiers:\n  - !XX\n    a: eval(m + 1)\n    b: [eval(n)]\n"
    evaluated = evaluate_recipe_yaml_str_equations(text)
    assert evaluated == "m: 2.0\nmodifiers:\n- !XX\n  a: 3.0\n  b:\n  - 10.0\nn: 10.0\n"


@pytest.mark.parametrize("text", ["- !XX\n  a: eval(b)\n", "plain\n", "\n"])
def test_what_is_not_a_mapping_is_not_evaluated(text: str) -> None:
    assert evaluate_recipe_yaml_str_equations(text) == text
