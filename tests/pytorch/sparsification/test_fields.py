"""The checks that fields of modifiers are declared with."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sparseml.pytorch.sparsification.fields import between, list_or_none, plainly


@pytest.mark.parametrize(
    ("bounds", "value", "shown"),
    [
        ({"least": 0.0}, 0, "0"),
        ({"least": 0.0}, "1e-3", "1e-3"),
        ({"least": 0.0, "most": 1.0}, 1, "1"),
        ({"above": 0.0}, 1e-9, "1e-09"),
    ],
)
def test_a_number_between_bounds_is_kept(bounds: Any, value: Any, shown: str) -> None:
    number = between(**bounds)("share", value)
    assert (number, str(number)) == (float(value), shown)
    plain = plainly(between(**bounds))("share", value)
    assert type(plain) is (float if isinstance(value, str) else type(value))


@pytest.mark.parametrize(
    ("bounds", "value", "message"),
    [
        ({"least": 0.0}, -0.1, "share must be at least 0, found -0.1"),
        ({"least": 0.0, "most": 1.0}, 1.5, "share must be at least 0 and at most 1, found 1.5"),
        ({"above": 0.0}, 0, "share must be greater than 0, found 0.0"),
        ({"above": 0.0, "most": 0.5}, "2", "must be greater than 0 and at most 0.5, found 2.0"),
        ({"least": 0.0}, math.nan, "share must be at least 0, found nan"),
        ({"least": 0.0}, math.inf, "share must be finite, found inf"),
        ({"least": 0.0}, "much", "share must be a number, found 'much'"),
    ],
)
def test_another_number_is_refused(bounds: Any, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        between(**bounds)("share", value)


def test_what_is_no_number_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="share must be a number, found None"):
        between(least=0.0)("share", None)


def test_a_list_is_copied() -> None:
    given = [1, "b"]
    kept = list_or_none()("layers", given)
    assert kept == given and kept is not given
    assert list_or_none("a list of layers", str)("layers", (1, "b")) == ["1", "b"]
    assert list_or_none()("layers", None) is None


@pytest.mark.parametrize("value", ["fc", 3])
def test_what_is_no_list_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=f"layers must be a list of layers, found {value!r}"):
        list_or_none("a list of layers")("layers", value)
