"""Bar charts of one run: layers, sizes, counts and latencies."""

from __future__ import annotations

from collections.abc import Sequence

from sparseml.report.formats import (
    bytes_text,
    count_text,
    ms_text,
    percent_text,
    quartiles_text,
    setting_text,
)
from sparseml.report.panels.charts import Bar, BarGroup, Text
from sparseml.report.reading import Run
from sparseml.report.schema import Latency, Layer, Storage, Variant

_VARIANTS = ("dense", "sparse", "shrunk")
_STORAGE = {"dense": "as it is", "gzip": "gzip", "zstd": "zstd", "bitmask": "bit mask + values"}
_TIMES = "\N{MULTIPLICATION SIGN}"

Variants = Sequence[tuple[str, Variant]]
# what was measured, how long it took, and how long the dense model took
Timed = tuple[str, Latency, Latency | None]
# what is counted, how many there are, and of which variant
Row = tuple[str, int | None, str]


def bar_groups(run: Run, key: str) -> list[BarGroup]:
    """Return the charts of what is known of a run's models.

    :param key: to tell the ids of this run's charts from those of others on the page
    """
    known = run.result.variants
    order = [*_VARIANTS, *(name for name in known if name not in _VARIANTS)]
    variants = [(name, known[name]) for name in order if name in known]
    measured = [(name, latency, None) for name, variant in variants for latency in variant.latency]
    groups = [
        _layers(run.result.layers, f"{key}-layers"),
        _storage(variants, f"{key}-storage"),
        _counts(variants, f"{key}-counts"),
        latency_bars(measured, f"{key}-latency"),
    ]
    return [group for group in groups if any(bars for _, bars in group.parts)]


def _style(name: str) -> int:
    return _VARIANTS.index(name) if name in _VARIANTS else 1


def _layers(layers: Sequence[Layer], key: str) -> BarGroup:
    note = "The bar shows what was reached, the upright line what was asked."
    if any(layer.scope == "global" for layer in layers):
        note += (
            " The recipe ranks the weights of all layers together, so what was asked holds for "
            "all of them as a whole, not for each."
        )
    asked = any(layer.asked is not None for layer in layers)
    return BarGroup(
        key,
        "Sparsity of each layer",
        ("layer", "zeros", "asked", "weights"),
        [("", [_layer_bar(layer) for layer in layers])],
        note if asked else "",
    )


def _layer_bar(layer: Layer) -> Bar:
    reached = layer.zeros / layer.parameters if layer.parameters else 0.0
    asked = "" if layer.asked is None else percent_text(layer.asked, 1)
    of_all = " of all layers together" if layer.scope == "global" else ""
    facts = [
        " ".join([layer.kind or "", f" {_TIMES} ".join(map(str, layer.shape))]).strip(),
        f"{layer.zeros:,} of {layer.parameters:,} weights are zero ({percent_text(reached)})",
        f"asked: {asked}{of_all}" if asked else "not pruned by the recipe",
    ]
    return Bar(
        layer.name,
        100 * reached,
        (percent_text(reached, 1), asked or "none", count_text(layer.parameters)),
        mark=None if layer.asked is None else 100 * layer.asked,
        style=_style("sparse"),
        tip="\n".join(filter(None, facts)),
    )


def _storage(variants: Variants, key: str) -> BarGroup:
    rows = {
        name: [(title, getattr(v.storage, kind, None), name) for kind, title in _STORAGE.items()]
        for name, v in variants
    }
    largest = max((size or 0 for found in rows.values() for _, size, _ in found), default=0)
    parts = [
        (
            f"{name}: {variant.description}" if variant.description else name,
            _share_bars(rows[name], bytes_text, largest),
        )
        for name, variant in variants
    ]
    heads = ("stored", "size", "of largest")
    return BarGroup(key, "Size", heads, [part for part in parts if part[1]])


def size_bars(sizes: Sequence[tuple[str, Storage | None]], key: str) -> BarGroup:
    """Sizes of several models side by side, one part for each way to store them that tells them
    apart; gzip only where there is no zstd."""
    parts = []
    for kind, title in _STORAGE.items():
        rows = [(name, getattr(storage, kind, None), name) for name, storage in sizes]
        zstd_too = kind == "gzip" and all(storage.zstd for _, storage in sizes if storage)
        if not zstd_too and len({size for _, size, _ in rows if size}) > 1:
            parts.append((title, _share_bars(rows, bytes_text)))
    return BarGroup(key, "Size", ("run", "size", "of largest"), parts)


def _counts(variants: Variants, key: str) -> BarGroup:
    """The whole of each variant and, where it is less, what is left without zeros."""
    parameters: list[Row] = []
    operations: list[Row] = []
    for name, v in variants:
        left = v.nonzero if v.nonzero != v.parameters else None
        parameters += [(name, v.parameters, name), (f"{name}, not zero", left, name)]
        if v.flops:
            left = v.flops.sparse if v.flops.sparse != v.flops.dense else None
            operations += [(name, v.flops.dense, name), (f"{name}, zeros skipped", left, name)]
    batches = {v.flops.batch_size for _, v in variants if v.flops and v.flops.batch_size}
    batch = f" for a batch of {batches.pop()}" if len(batches) == 1 else ""
    parts = [
        ("Parameters", _share_bars(parameters, count_text)),
        (f"Floating-point operations{batch}", _share_bars(operations, count_text)),
    ]
    heads = ("model", "count", "of largest")
    return BarGroup(key, "Parameters and operations", heads, [part for part in parts if part[1]])


def _share_bars(rows: Sequence[Row], text: Text, largest: int = 0) -> list[Bar]:
    """Return bars for the counts that are known, by default relative to the largest of them."""
    known = [(label, count, name) for label, count, name in rows if count is not None]
    largest = largest or max((count for _, count, _ in known), default=0)
    return [
        Bar(
            label,
            100 * count / largest,
            (text(count), f"{100 * count / largest:.1f}%"),
            style=_style(name),
            tip=f"{count:,}",
        )
        for label, count, name in known
        if largest
    ]


def latency_bars(measured: Sequence[Timed], key: str) -> BarGroup:
    """Latencies under the same conditions side by side.

    :param measured: what was measured, how long it took, and how long the dense model that it took
        turns with, unless that is among them
    """
    settings: dict[str, list[Timed]] = {}
    for timed in measured:
        settings.setdefault(setting_text(timed[1]), []).append(timed)
    rounds = sorted({latency.rounds for _, latency, _ in measured}) or [0]
    taken = f"{rounds[0]:,}" if len(rounds) == 1 else f"{rounds[0]:,} to {rounds[-1]:,}"
    note = f"Median of {taken} rounds"
    if any(before for *_, before in measured):
        note += (
            ". Each model took turns with the dense model of its own run, whose median is the "
            "upright line: compare a bar with its line, not with bars of other runs"
        )
    else:
        note += " in which the models take turns"
    note += "; the whisker spans the quartiles. Throughput is the batch divided by the median."
    parts = [(setting, _latency_part(found)) for setting, found in settings.items()]
    heads = ("model", "median", "quartiles", "samples/s")
    return BarGroup(key, "Latency and throughput", heads, parts, note)


def _latency_part(found: Sequence[Timed]) -> list[Bar]:
    known = [latency for _, *both in found for latency in both if latency]
    longest = max(latency.upper_quartile_ms for latency in known) or 1.0
    return [
        Bar(
            name,
            100 * latency.median_ms / longest,
            (
                ms_text(latency.median_ms),
                quartiles_text(latency),
                count_text(latency.samples_per_second),
            ),
            mark=100 * before.median_ms / longest if before else None,
            low=100 * latency.lower_quartile_ms / longest,
            high=100 * latency.upper_quartile_ms / longest,
            style=_style(name),
            tip=_latency_tip(latency, before),
        )
        for name, latency, before in found
    ]


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
