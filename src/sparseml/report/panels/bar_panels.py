"""Bar charts of one run: layers, sizes, counts and latencies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparseml.report.formats import (
    bytes_text,
    count_text,
    ms_text,
    percent_text,
    quartiles_text,
)
from sparseml.report.panels.charts import Bar, BarGroup
from sparseml.report.reading import Run
from sparseml.report.schema import Latency, Layer, Storage, Variant

__all__ = ["bar_groups", "latency_bars", "size_bars"]

_VARIANTS = ("dense", "sparse", "shrunk")
_STORAGE = {"dense": "as it is", "gzip": "gzip", "zstd": "zstd", "bitmask": "bit mask + values"}
_TIMES = "\N{MULTIPLICATION SIGN}"

Variants = Sequence[tuple[str, Variant]]
# what was measured, how long it took, and how long the dense model took
Timed = tuple[str, Latency, Latency | None]
# for each variant: what is counted, and how many
Counts = Sequence[tuple[str, Sequence[tuple[str, int | None]]]]


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
    sizes = {
        name: {kind: size for kind in _STORAGE if (size := getattr(variant.storage, kind, None))}
        for name, variant in variants
    }
    largest = max((size for found in sizes.values() for size in found.values()), default=0)
    parts = [
        (
            f"{name}: {variant.description}" if variant.description else name,
            [
                _share_bar(_STORAGE[kind], size, largest, bytes_text(size), name)
                for kind, size in sizes[name].items()
            ],
        )
        for name, variant in variants
    ]
    heads = ("stored", "size", "of largest")
    return BarGroup(key, "Size", heads, [(title, bars) for title, bars in parts if bars])


def size_bars(sizes: Sequence[tuple[str, Storage | None]], key: str) -> BarGroup:
    """Sizes of several models side by side, one part for each way to store them that tells them
    apart; gzip only where there is no zstd."""
    parts = []
    for kind, title in _STORAGE.items():
        found = [(name, size) for name, storage in sizes if (size := getattr(storage, kind, None))]
        zstd_too = kind == "gzip" and all(storage.zstd for _, storage in sizes if storage)
        largest = max((size for _, size in found), default=0)
        if zstd_too or all(size == largest for _, size in found):
            continue
        bars = [_share_bar(name, size, largest, bytes_text(size), name) for name, size in found]
        parts.append((title, bars))
    return BarGroup(key, "Size", ("run", "size", "of largest"), parts)


def _share_bar(label: str, count: int, largest: int, text: str, variant: str) -> Bar:
    share = 100 * count / largest
    return Bar(label, share, (text, f"{share:.1f}%"), style=_style(variant), tip=f"{count:,}")


def _counts(variants: Variants, key: str) -> BarGroup:
    parameters: Counts = [
        (name, [("", v.parameters), (", not zero", v.nonzero)])
        for name, v in variants
        if v.parameters
    ]
    flops: Counts = [
        (name, [("", v.flops.dense), (", zeros skipped", v.flops.sparse)])
        for name, v in variants
        if v.flops
    ]
    batches = {v.flops.batch_size for _, v in variants if v.flops and v.flops.batch_size}
    batch = f" for a batch of {batches.pop()}" if len(batches) == 1 else ""
    parts = [
        ("Parameters", list(_count_bars(parameters))),
        (f"Floating-point operations{batch}", list(_count_bars(flops))),
    ]
    heads = ("model", "count", "of largest")
    return BarGroup(key, "Parameters and operations", heads, [part for part in parts if part[1]])


def _count_bars(counts: Counts) -> Iterator[Bar]:
    """The whole of each variant and, where it is less, what is left without zeros."""
    largest = max((count or 0 for _, found in counts for _, count in found), default=0)
    for name, found in counts:
        whole = found[0][1]
        for what, count in found:
            if count is not None and largest and (not what or count != whole):
                yield _share_bar(f"{name}{what}", count, largest, count_text(count), name)


def latency_bars(measured: Sequence[Timed], key: str) -> BarGroup:
    """Latencies under the same conditions side by side.

    :param measured: what was measured, how long it took, and how long the dense model that it took
        turns with, unless that is among them
    """
    settings: dict[str, list[Timed]] = {}
    for timed in measured:
        settings.setdefault(_setting(timed[1]), []).append(timed)
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


def _setting(latency: Latency) -> str:
    plural = "" if latency.threads == 1 else "s"
    threads = f", {latency.threads} thread{plural}" if latency.threads else ""
    return f"batch of {latency.batch_size} on {latency.device}{threads}"


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
    if latency.fastest_ms is not None and latency.slowest_ms is not None:
        facts.append(
            f"fastest {ms_text(latency.fastest_ms)}, slowest {ms_text(latency.slowest_ms)}"
        )
    if latency.settled is False:
        facts.append("the quartiles had not settled when the time was up")
    if before:
        facts.append(f"dense {ms_text(before.median_ms)}")
    return "\n".join(facts)
