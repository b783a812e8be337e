from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.utils import did_you_mean, nearest_names, quoted_list, shortened
from sparseml.utils.text import one_line, shown

NAMES = ["final_sparsity", "init_sparsity", "start_epoch", "end_epoch", "start_step"]


def test_nearest_names() -> None:
    assert nearest_names("final_sparisty", NAMES) == ["final_sparsity"]
    assert nearest_names("FINAL_SPARSITY", NAMES) == ["final_sparsity"]
    assert nearest_names("start_epoc", NAMES)[0] == "start_epoch"
    assert nearest_names("zzz", NAMES) == []
    assert nearest_names("start_", NAMES, limit=1) == ["start_step"]
    assert nearest_names("a" * 10_000, ["a" * 10_000]) == []


@given(st.text(min_size=1, max_size=20), st.lists(st.text(min_size=1, max_size=20), max_size=8))
def test_an_existing_name_is_the_nearest(name: str, others: list[str]) -> None:
    others = [other for other in others if other.lower() != name.lower()]
    assert nearest_names(name, [*others, name])[0] == name


@pytest.mark.parametrize(
    ("names", "text"), [([], ""), (["a"], "'a'"), (["a", "b"], "'a' or 'b'"),
                        (["a", "b", "c"], "'a', 'b' or 'c'")],
)  # fmt: skip
def test_quoted_list(names: list[str], text: str) -> None:
    assert quoted_list(names) == text


def test_other_last_word() -> None:
    assert quoted_list(["a", "b"], last="and") == "'a' and 'b'"


def test_did_you_mean() -> None:
    assert did_you_mean("final_sparisty", NAMES) == "; did you mean 'final_sparsity'?"
    assert did_you_mean("zzz", NAMES) == ""
    assert did_you_mean("a", []) == ""


@given(st.text(max_size=300) | st.lists(st.integers()))
def test_shortened(value: object) -> None:
    text = shortened(value, 40)
    assert len(text) <= 43
    assert text == repr(value).replace(r"\\", "\\") or text.endswith("...")


def test_patterns_are_shown_as_they_are_written() -> None:
    assert shown(r"re:a\.b") == r"'re:a\.b'"
    assert shortened([r"re:\d+", {"a": "b\n"}]) == r"['re:\d+', {'a': 'b\n'}]"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\n  lines\n"), "two; lines"),
        (ValueError(), "ValueError"),
        (KeyError("zeroed"), "there is no 'zeroed' in it"),
        (KeyError(3), "there is no 3 in it"),
        (KeyError("no column of that name"), "no column of that name"),
        (KeyError(), "KeyError"),
        ("text\nas it is", "text; as it is"),
    ],
)
def test_an_error_in_one_line(error: BaseException | str, text: str) -> None:
    assert one_line(error) == text
