"""Numbers as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile

from sparseml.report.schema import Latency

_MINUS, _TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
_FRACTIONS = re.compile(
    r"acc|top[-_ ]?[15]|recall|precision|sparsity|\b(f1|auc|iou|mcc|map)\b", re.IGNORECASE
)
_LOWER_IS_BETTER = re.compile(
    r"loss|perplexity|error|entropy|\b(ppl|err|wer|rmse|mse|mae|nll)\b", re.IGNORECASE
)


def is_fraction_metric(name: str, *values: float) -> bool:
    """Whether numbers of this name are fractions that are better read as per cent."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(_FRACTIONS.search(_words(name))) and all(-1.0 <= value <= 1.0 for value in finite)


def prefers_low(name: str) -> bool:
    """Whether a lower number is a better one, by the metric's name."""
    return bool(_LOWER_IS_BETTER.search(_words(name)))


def _words(name: str) -> str:
    return name.replace("_", " ")


def number_text(value: float) -> str:
    """Four significant digits, without exponent where that is short."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else f"{_MINUS}∞")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", _MINUS)


def percent_text(value: float, digits: int = 2) -> str:
    """A fraction as per cent."""
    if not math.isfinite(value):
        return number_text(value)
    return f"{100 * value:.{digits}f}%".replace("-", _MINUS)


def metric_text(name: str, value: float) -> str:
    """A metric as per cent if it is a fraction, else as a number."""
    return percent_text(value) if is_fraction_metric(name, value) else number_text(value)


def difference_text(name: str, value: float, before: float) -> str:
    """``0.22 points below``: in percentage points if the metric is a fraction."""
    change = value - before
    if not math.isfinite(change):
        return "not comparable with"
    if change == 0:
        return "equal to"
    amount = number_text(abs(change))
    if is_fraction_metric(name, value, before):
        amount = points_text(abs(change))
    return f"{amount} {'above' if change > 0 else 'below'}"


def points_text(value: float) -> str:
    """A difference of fractions in percentage points."""
    return f"{100 * value:.2f} points"


def count_text(value: float) -> str:
    """A count in full up to a million, with three digits and a unit beyond."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= unit:
            return f"{value / unit:{'.3g' if value < 999.5 * unit else ',.0f'}} {name}"
    return f"{value:,.0f}"


def byte_unit(value: float) -> tuple[int, str]:
    """Return the binary unit for so many bytes: how many bytes it is, and its name."""
    units = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
    return next((unit for unit in units if value >= unit[0]), (1, "bytes"))


def bytes_text(value: float) -> str:
    """Bytes with a binary unit."""
    unit, name = byte_unit(value)
    return f"{value / unit:.{0 if unit == 1 or value >= 100 * unit else 1}f} {name}"


def ms_text(value: float) -> str:
    """Milliseconds, with three digits."""
    return f"{value:.3g} ms" if value < 100 else f"{value:,.0f} ms"


def setting_text(latency: Latency) -> str:
    """What was timed, and where."""
    threads = f" with {latency.threads} thread{'s' * (latency.threads != 1)}"
    where = f"batch of {latency.batch_size} on {latency.device}"
    return f"{where}{threads}" if latency.threads else where


def quartiles_text(latency: Latency) -> str:
    """The range that half of the rounds took, in milliseconds."""
    ends = (latency.lower_quartile_ms, latency.upper_quartile_ms)
    return " to ".join(number_text(float(f"{value:.3g}")) for value in ends)


def capital(text: str) -> str:
    """Text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def listed(names: Sequence[str], most: int = 4) -> str:
    """``a, b and c``; of many the first ones, and how many more there are."""
    shown = list(names) if len(names) <= most + 1 else [*names[:most], f"{len(names) - most} more"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def told_apart(names: Iterable[str], separator: str) -> dict[str, str]:
    """Return names without the words that all of them begin with."""
    words = {name: name.split(separator) for name in names}
    ahead = zip(*words.values(), strict=False) if len(words) > 1 else ()
    shared = len(list(takewhile(lambda column: len(set(column)) == 1, ahead)))
    return {
        name: separator.join(parts[min(shared, len(parts) - 1) :]) for name, parts in words.items()
    }


def ratio_text(ratio: float) -> str:
    """How many times."""
    return f"{ratio:.2f}{_TIMES}" if ratio < 10 else f"{ratio:.1f}{_TIMES}"
