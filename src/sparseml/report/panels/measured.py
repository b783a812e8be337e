"""What models take: bytes, parameters, operations, and time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparseml.report.formats import (
    bytes_text,
    capital,
    count_text,
    ms_text,
    quartiles_text,
    setting_text,
    told_apart,
)
from sparseml.report.panels.charts import (
    NARROW,
    TIP,
    WIDE,
    Panel,
    Spec,
    Table,
    names_of,
    quantity,
    rounded,
)
from sparseml.report.schema import Latency, Variant

_VARIANTS = ("dense", "sparse", "shrunk")
_STORAGE = {
    "dense": "size as it is",
    "gzip": "size with gzip",
    "zstd": "size with zstd",
    "bitmask": "size as bit mask and values",
}

#: What was measured, how long it took, and how long the dense model took.
Timed = tuple[str, Latency, Latency | None]


def in_order(variants: Mapping[str, Variant]) -> dict[str, Variant]:
    """Return the forms of a model, those that all runs have first."""
    order = [*_VARIANTS, *(name for name in variants if name not in _VARIANTS)]
    return {name: variants[name] for name in order if name in variants}


def forms_panel(variants: Mapping[str, Variant], key: str) -> Panel | None:
    """Return the table of sizes and counts, a column for each form; None if none is known."""
    models = in_order(variants).values()
    batches = {v.flops.batch_size for v in models if v.flops and v.flops.batch_size}
    batch = f" for a batch of {batches.pop()}" if len(batches) == 1 else ""
    rows = [
        _counts(title, [getattr(v.storage, kind, None) for v in models], bytes_text)
        for kind, title in _STORAGE.items()
    ]
    rows += [
        _counts("parameters", [v.parameters for v in models], count_text),
        _counts("parameters, not zero", [v.nonzero for v in models], count_text),
        _counts(f"operations{batch}", [getattr(v.flops, "dense", None) for v in models]),
        _counts("operations, zeros skipped", [getattr(v.flops, "sparse", None) for v in models]),
    ]
    known = [row for row in rows if any(row[1:])]
    if not known:
        return None
    told = [
        f"{capital(n)}: {v.description}" for n, v in in_order(variants).items() if v.description
    ]
    table = Table(["", *in_order(variants)], known)
    note = ". ".join(told) + "." * bool(told)
    return Panel(key, "Size, parameters and operations", table, note=note)


def _counts(
    title: str, counts: Sequence[int | None], text: Callable[[float], str] = count_text
) -> list[str]:
    """Return a row: the counts and, after the first, how they compare with it."""
    first = counts[0] if counts else None
    cells = []
    for index, count in enumerate(counts):
        share = f" ({100 * count / first:.1f}%)" if index and first and count is not None else ""
        cells.append("" if count is None else f"{text(count)}{share}")
    return [title, *cells]


def latency_panels(measured: Sequence[Timed], key: str) -> list[Panel]:
    """Return latencies under the same conditions side by side, a chart for each of these.

    :param measured: what was measured, how long it took, and how long the dense model that it took
        turns with, unless that is among them
    """
    settings: dict[str, list[Timed]] = {}
    for timed in measured:
        settings.setdefault(setting_text(timed[1]), []).append(timed)
    return [
        _latency_panel(setting, found, f"{key}-{number}")
        for number, (setting, found) in enumerate(settings.items())
    ]


def _latency_panel(setting: str, found: Sequence[Timed], key: str) -> Panel:
    rounds = sorted({latency.rounds for _, latency, _ in found})
    taken = f"{rounds[0]:,}" if len(rounds) == 1 else f"{rounds[0]:,} to {rounds[-1]:,}"
    note = f"Median of {taken} rounds"
    if any(before for *_, before in found):
        note += (
            ". Each model took turns with the dense model of its own run, whose median is the "
            "upright line: compare a bar with its line, not with bars of other runs"
        )
    else:
        note += " in which the models take turns"
    note += "; the whisker spans the quartiles. Throughput is the batch divided by the median."
    rows = [
        [name, ms_text(one.median_ms), quartiles_text(one), count_text(one.samples_per_second)]
        for name, one, _ in found
    ]
    table = Table(("model", "median", "quartiles", "samples/s"), rows)
    title = f"Latency of a {setting}"
    return Panel(key, title, table, _latency_spec(found), f"{title}: {len(found)} models", (), note)


def _latency_spec(found: Sequence[Timed]) -> Spec:
    bare = told_apart((name for name, *_ in found), " ")
    colour = {"field": "c", "type": "nominal", "scale": None}
    names = {**names_of("m", 40, 20, 6), "scale": {"padding": 0.2}}
    time = quantity("ms", "ms", zero=True)
    black = {"color": "var(--fg)", "clip": True}
    layers: list[Spec] = [
        {"mark": {"type": "bar", "opacity": 0.8}, "encoding": {"color": colour}},
        {
            "mark": {"type": "rule", "strokeWidth": 2, **black},
            "encoding": {"x": {**time, "field": "low"}, "x2": {"field": "high"}},
        },
    ]
    if any(before for *_, before in found):
        mark = {"type": "tick", "thickness": 3, **black}
        layers.append({"mark": mark, "encoding": {"x": {**time, "field": "dense"}}})
    return {
        "params": [NARROW],
        "data": {"values": [_latency_value(*timed, bare[timed[0]]) for timed in found]},
        **WIDE,
        "height": 22 * len(found),
        "encoding": {
            "y": names,
            "x": time,
            **TIP,
        },
        "layer": layers,
    }


def _latency_value(
    name: str, latency: Latency, before: Latency | None, label: str
) -> dict[str, Any]:
    style = _VARIANTS.index(name) if name in _VARIANTS else 1
    value = {
        "m": label,
        "ms": rounded(latency.median_ms),
        "low": rounded(latency.lower_quartile_ms),
        "high": rounded(latency.upper_quartile_ms),
        "c": f"var(--s{style})",
        "tip": f"{name}: {ms_text(latency.median_ms)}\n{_latency_tip(latency, before)}",
    }
    return value | ({"dense": rounded(before.median_ms)} if before else {})


def _latency_tip(latency: Latency, before: Latency | None) -> str:
    facts = [f"{latency.rounds} rounds after {latency.warmup} to warm up"]
    fastest, slowest = latency.fastest_ms, latency.slowest_ms
    if fastest is not None and slowest is not None:
        facts.append(f"fastest {ms_text(fastest)}, slowest {ms_text(slowest)}")
    if latency.settled is False:
        facts.append("the quartiles had not settled when the time was up")
    if before:
        facts.append(f"dense {ms_text(before.median_ms)}")
    return "\n".join(facts)
