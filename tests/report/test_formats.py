"""Numbers as text."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from sparseml.report import formats

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (formats.number_text, 0.123456, "0.1235"),
        (formats.number_text, 12345.6, "12,346"),
        (formats.number_text, -2, f"{MINUS}2"),
        (formats.number_text, math.nan, "not a number"),
        (formats.number_text, -math.inf, f"{MINUS}∞"),
        (formats.percent_text, 0.98765, "98.77%"),
        (formats.percent_text, math.inf, "∞"),
        (formats.count_text, 999_999, "999,999"),
        (formats.count_text, 1_234_567, "1.23 M"),
        (formats.count_text, 286_000_000, "286 M"),
        (formats.count_text, 4_100_000_000, "4.1 G"),
        (formats.bytes_text, 512, "512 bytes"),
        (formats.bytes_text, 2048, "2.0 KiB"),
        (formats.bytes_text, 5 << 30, "5.0 GiB"),
        (formats.bytes_text, 300 << 20, "300 MiB"),
        (formats.ms_text, 0.01234, "0.0123 ms"),
        (formats.ms_text, 1234.5, "1,234 ms"),
        (formats.ratio_text, 1.5, "1.50\N{MULTIPLICATION SIGN}"),
        (formats.ratio_text, 12.34, "12.3\N{MULTIPLICATION SIGN}"),
    ],
)
def test_numbers(function: Callable[[float], str], value: float, text: str) -> None:
    assert function(value) == text


@pytest.mark.parametrize("name", ["accuracy", "test/top1", "top_5", "F1", "val/mAP", "mean IoU"])
def test_fractions_by_name(name: str) -> None:
    assert formats.is_fraction_metric(name, 0.5, math.nan)
    assert not formats.is_fraction_metric(name, 50.0)
    assert formats.metric_text(name, 0.5) == "50.00%"


@pytest.mark.parametrize("name", ["loss", "learning rate", "bleu", "roadmap"])
def test_other_metrics_by_name(name: str) -> None:
    assert not formats.is_fraction_metric(name, 0.5)
    assert formats.metric_text(name, 0.5) == "0.5"


@pytest.mark.parametrize("name", ["loss", "train/loss", "Perplexity", "wer", "word_error_rate"])
def test_lower_is_better(name: str) -> None:
    assert formats.prefers_low(name)


@pytest.mark.parametrize("name", ["accuracy", "power", "answered", "bleu"])
def test_higher_is_better(name: str) -> None:
    assert not formats.prefers_low(name)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["vit CAP 0.5", "vit CAP 0.8", "vit GM"], ["CAP 0.5", "CAP 0.8", "GM"]),
        (["one", "one two"], ["one", "two"]),
        (["alone here"], ["alone here"]),
        (["vital a", "vit b"], ["vital a", "vit b"]),
        ([], []),
    ],
)
def test_names_are_told_apart(names: list[str], told: list[str]) -> None:
    assert formats.told_apart(names, " ") == dict(zip(names, told, strict=True))
