"""Tables of plain text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.cli.tables import folded, table

WORDS = st.lists(st.text("abc.=,/", min_size=1, max_size=30), max_size=6).map(" ".join)


@given(WORDS, st.integers(4, 40))
def test_folding_loses_nothing_that_fits(text: str, width: int) -> None:
    lines = folded(text, width)
    assert all(len(line) <= width for line in lines)
    joined = "".join(lines).replace(" ", "")
    assert joined == text.replace(" ", "") or "..." in joined


def test_words_are_broken_at_dots_or_lose_their_middle() -> None:
    name = "encoder.layers.11.self_attn.in_proj_weight"
    assert folded(f"{name} of the model", 24) == [
        "encoder.layers.11.",
        "self_attn.in_proj_weight",
        "of the model",
    ]
    assert folded(r"re:.*\.attention\.weight", 16) == [r"re:.*\.", r"attention\.", "weight"]
    assert folded("a_word_that_is_too_long", 12) == ["a_wor...long"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_fits_and_keeps_its_words(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [
        ("1", "GlobalMagnitudePruningModifier", "params=['re:.*weight'], mask_type=unstructured"),
        ("12", "EpochRangeModifier", ""),
    ]
    text = table("Modifiers", (">#", "modifier", "fields"), rows)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "GlobalMagnitudePruningModifier" in text and "mask_type=" in text
    assert {line[:3] for line in lines[4:] if line[1:3].strip()} == {"  1", " 12"}
    assert (len(lines) == 6) == (width == 200)
