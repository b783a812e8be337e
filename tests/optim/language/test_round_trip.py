from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from sparseml.optim import (
    BaseManager,
    load_recipe,
    load_recipe_yaml_str_no_classes,
    rewrite_recipe_yaml_string_with_classes,
    update_recipe_variables,
)
from sparseml.optim.language.recipe_text import field_text, metadata_text
from sparseml.sparsification import EpochRangeModifier, GMPruningModifier
from sparseml.utils.written_number import WrittenNumber

printable = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"], include_characters="\n\t"),
    max_size=20,
)  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | printable
    | st.floats(allow_nan=False)
    | st.sampled_from(["1e-3", "2:4", "yes", "null", "~", "0x1", "1_0"])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(printable | st.integers() | st.floats(allow_nan=False), inner, max_size=4)
    ),
    max_leaves=12,
)


def key_of(text: str) -> Any:
    return load_recipe_yaml_str_no_classes(f"key: {text}\n")["key"]


@example({"\n": None})
@example(["last line\n"])
@example(1e-07)
@given(values)
def test_fields_read_back(value: Any) -> None:
    text = field_text(value)
    assert "\n" not in text
    read = key_of(text)
    assert read == value
    # a number without a dot, such as 1e-07, keeps its text
    kinds = {float, WrittenNumber} if isinstance(value, float) else {type(value)}
    assert type(read) in kinds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3.0"), (1e-05, "1e-05"), (True, "True"), (7, "7"), ("cubic", "cubic"),
        ("2:4", "2:4"), ("re:a.b", "re:a.b"), (["re:.*weight"], "['re:.*weight']"),
        ({0.5: ["a"]}, "{0.5: ['a']}"), ([1, 4], "[1, 4]"), ({}, "{}"), ([], "[]"),
        ("eval(a)", "eval(a)"), ("a b", "a b"),
    ],
)  # fmt: skip
def test_fields_look_as_python_prints_them(value: Any, text: str) -> None:
    assert field_text(value) == text == str(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1.0", "'1.0'"), ("True", "'True'"), ("", "''"), ("a: b", "'a: b'"), ("a #b", "'a #b'"),
        (["re:a\\.b"], r"['re:a\.b']"), ([None], "[null]"), (float("inf"), ".inf"),
    ],
)  # fmt: skip
def test_unless_that_would_be_misread(value: Any, text: str) -> None:
    assert field_text(value) == text


def test_tuples_come_back_as_lists_and_the_rest_is_only_shown() -> None:
    assert key_of(field_text((1, 2))) == [1, 2]
    assert field_text(object).startswith("<class")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "None"), ("3.11", "3.11"), (5, "5"), ("a: b", "'a: b'"), (["x"], "['x']")],
)
def test_metadata(value: Any, text: str) -> None:
    assert metadata_text(value) == text


@given(st.dictionaries(printable.filter(bool), values, max_size=5))
def test_plain_data_survive_rewriting(container: dict[str, Any]) -> None:
    container = {key: value for key, value in container.items() if "OBJECT." not in key}
    text = rewrite_recipe_yaml_string_with_classes(container)
    assert load_recipe_yaml_str_no_classes(text) == container
    assert yaml.safe_load(text) == container


@given(values)
def test_overrides_survive(value: Any) -> None:
    text = update_recipe_variables("v: 1\n", {"v": value})
    assert load_recipe_yaml_str_no_classes(text) == {"v": value}


epochs = st.floats(0, 1000, allow_nan=False)
names = st.lists(printable.filter(lambda name: not name.startswith("eval(")), max_size=3)


@given(
    st.lists(st.tuples(epochs, epochs, names, st.floats(0, 1)), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["author", "note", "epochs"]), scalars, max_size=3),
    st.booleans(),
)
def test_managers_read_back_with_the_same_text(
    given_modifiers: list[Any], metadata: dict[str, Any], staged: bool
) -> None:
    modifiers: list[Any] = []
    for one, two, params, sparsity in given_modifiers:
        start, end = sorted((one, two))
        modifiers += [
            EpochRangeModifier(start, end),
            GMPruningModifier(sparsity, 0.8, start, end, 0.5, params, mask_type="2:4"),
        ]
    content: Any = {"stage": modifiers} if staged else modifiers
    entry = {"stage" if staged else "__metadata__": metadata}
    manager = BaseManager(content, entry)
    recipe = load_recipe(str(manager), "toy")
    again = BaseManager(recipe.modifiers, recipe.metadata)
    read = list(again.iter_modifiers())
    for modifier, before in zip(read, manager.iter_modifiers(), strict=True):
        assert modifier.props(True) == before.props(True)
        assert modifier.identifier() == before.identifier()
    assert again.to_string_lines(include_metadata=False) == manager.to_string_lines(
        include_metadata=False
    )
