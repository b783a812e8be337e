"""Where the zeros are: the layers of one run, and layers times runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparseml.report.formats import count_text, percent_text, told_apart
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
from sparseml.report.reading import Run
from sparseml.report.schema import Layer

_TIMES = "\N{MULTIPLICATION SIGN}"
_WEIGHT = ".weight"
_NAMES_WIDTH, _COLUMN_WIDTH = 140, 22
_MANY_ROWS = 60
_MOST_ROWS = 300
_LETTERS, _ON_PHONES = 40, 20


def layer_panel(layers: Sequence[Layer], key: str) -> Panel | None:
    """Return the sparsity of each layer beside what was asked, None if none is listed."""
    if not layers:
        return None
    note, names = "", _bare([layer.name for layer in layers])
    if any(layer.asked is not None for layer in layers):
        note = "The bar shows what was reached, the upright line what was asked."
    if any(layer.scope == "global" for layer in layers):
        note += (
            " The recipe ranks the weights of all layers together, so what was asked holds for "
            "all of them as a whole, not for each."
        )
    share = quantity("z", "zeros", percent=True)
    share["scale"] = {"domain": [0, 1]}
    marks: list[Spec] = [{"mark": {"type": "bar", "color": "var(--s1)"}}]
    if note:
        tick = {"type": "tick", "color": "var(--fg)", "thickness": 3}
        asked = {"field": "asked", "type": "quantitative"}
        marks.append({"mark": tick, "encoding": {"x": asked}})
    spec: Spec = {
        "params": [NARROW],
        "data": {"values": [_bar(layer, names[layer.name]) for layer in layers]},
        **WIDE,
        "height": _height(len(layers)),
        "encoding": {"y": _rows(), "x": share, **TIP},
        "layer": marks,
    }
    rows = [
        [
            layer.name,
            percent_text(_share(layer), 1),
            "none" if layer.asked is None else percent_text(layer.asked, 1),
            count_text(layer.parameters),
        ]
        for layer in layers
    ]
    table = Table(("layer", "zeros", "asked", "weights"), rows)
    title = "Sparsity of each layer"
    return Panel(key, title, table, spec, f"{title}: {len(layers)} layers", note=note)


def heat_panel(runs: Sequence[Run]) -> Panel | None:
    """Return layers times runs, None if no run lists its layers."""
    pruned = [run for run in runs if any(layer.zeros for layer in run.result.layers)]
    found = {run.name: {one.name: one for one in run.result.layers} for run in pruned}
    names = list(dict.fromkeys(name for layers in found.values() for name in layers))
    if not names:
        return None
    columns = told_apart(found, " ")
    kept, bare = names[:_MOST_ROWS], _bare(names)
    cells = [
        {**_bar(layer, bare[name]), "r": columns[run], "tip": f"{run}\n{_told(layer)}"}
        for run, layers in found.items()
        for name in kept
        if (layer := layers.get(name))
    ]
    label = {"type": "text", "fontSize": 11, "tooltip": None}
    room = {"expr": f"width > {38 * len(found)} ? 1 : 0"}
    dark = {"test": "datum.z > 0.7", "value": "var(--bg)"}
    spec: Spec = {
        "params": [NARROW],
        "data": {"values": cells},
        **WIDE,
        "height": _height(len(kept)),
        "encoding": {"y": _rows(), "x": names_of("r", 28, 16, 6, orient="top", labelAngle=-45)},
        "layer": [
            {
                "mark": {"type": "rect", "color": "var(--s1)", "stroke": "var(--bg)"},
                "encoding": {
                    "opacity": {
                        "field": "z",
                        "type": "quantitative",
                        "scale": {"domain": [0, 1], "range": [0.06, 1]},
                        "legend": None,
                    },
                    **TIP,
                },
            },
            {
                "mark": label | {"opacity": room},
                "encoding": {
                    "text": {"field": "z", "type": "quantitative", "format": ".0%"},
                    "color": {"condition": dark, "value": "var(--fg)"},
                },
            },
        ],
    }
    if len(kept) > _MANY_ROWS:
        spec["layer"].pop()
    rows = [
        [name, *(percent_text(_share(one), 1) if (one := layers.get(name)) else "" for layers in
                 found.values())]
        for name in names
    ]  # fmt: skip
    note = "The stronger the colour, the more zeros."
    if len(names) > len(kept):
        note += f" The first {len(kept)} of {len(names)} layers are drawn; the table has all."
    table = Table(["layer", *found], rows)
    said = f"Zeros of {len(names)} layers in {len(found)} runs"
    wide = _NAMES_WIDTH + _COLUMN_WIDTH * len(found)
    return Panel("layers", "Zeros, layer by layer", table, spec, said, note=note, wide=wide)


def _height(rows: int) -> int:
    return rows * (18 if rows <= _MANY_ROWS else 9)


def _rows() -> Spec:
    return names_of("l", _LETTERS, _ON_PHONES, _ON_PHONES - 4, labelOverlap=True)


def _share(layer: Layer) -> float:
    return layer.zeros / layer.parameters if layer.parameters else 0.0


def _bare(names: Sequence[str]) -> dict[str, str]:
    """Return what layers are called in a chart: without what all have in common."""
    end = _WEIGHT if all(name.endswith(_WEIGHT) for name in names) else ""
    return {name: short.removesuffix(end) for name, short in told_apart(names, ".").items()}


def _bar(layer: Layer, name: str) -> dict[str, Any]:
    return {"l": name, "z": rounded(_share(layer)), "asked": layer.asked, "tip": _told(layer)}


def _told(layer: Layer) -> str:
    asked = "not pruned by the recipe"
    if layer.asked is not None:
        of_all = " of all layers together" if layer.scope == "global" else ""
        asked = f"asked: {percent_text(layer.asked, 1)}{of_all}"
    kind = " ".join([layer.kind or "", f" {_TIMES} ".join(map(str, layer.shape))]).strip()
    zeros = f"{layer.zeros:,} of {layer.parameters:,} weights are zero"
    lines = [layer.name, kind, f"{zeros} ({percent_text(_share(layer))})", asked]
    return "\n".join(filter(None, lines))
