"""A key that occurs twice in one mapping."""

from __future__ import annotations

import logging

import pytest

from sparseml.optim import (
    evaluate_recipe_yaml_str_equations,
    load_recipe_yaml_str_no_classes,
    update_recipe_variables,
)
from sparseml.optim.language.document import parse
from sparseml.optim.language.source import RecipeSource
from sparseml.pytorch.optim import ScheduledModifierManager

TEXT = """epochs: 3
epochs: 5.0
modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: eval(epochs)
    end_epoch: eval(epochs * 2)
"""


def test_the_last_value_holds_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    manager = ScheduledModifierManager.from_yaml(TEXT)
    assert manager.modifiers[0].end_epoch == 10.0
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == (
        "the key 'epochs' occurs twice, in line 1 and in line 2; "
        "the key 'end_epoch' occurs twice, in line 6 and in line 7; the last value holds"
    )


def test_in_overriding_and_evaluating_too() -> None:
    assert load_recipe_yaml_str_no_classes("a: [1, 2]\nb: 1\na: [3]\n") == {"a": [3], "b": 1}
    assert "epochs: 7" in update_recipe_variables(TEXT, {"epochs": 7})
    assert "end_epoch: 10.0" in evaluate_recipe_yaml_str_equations(TEXT)


def test_places_are_those_of_the_last_value() -> None:
    document = parse(RecipeSource("a: [1, 2]\nb: 1\na:\n  - 3\n"), warn=False)
    assert document.marks[("a",)] == (3, 1) and document.marks[("a", 0)] == (4, 5)
    assert [str(one) for one in document.repeated.values()] == [
        "the key 'a' occurs twice, in line 1 and in line 3"
    ]


def test_of_thousands_a_few_are_told(caplog: pytest.LogCaptureFixture) -> None:
    lines = "".join(f"'{'k' * 90}{number % 3000}': 1\n" for number in range(9000))
    parse(RecipeSource(lines))
    (record,) = caplog.records
    told = record.getMessage()
    assert "occurs 3 times, from line 1 to line 6001; " in told
    assert told.endswith(" and 2997 more; the last value holds") and len(told) < 500
