"""Charts of several runs: what zeros and bytes cost, and where the zeros are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparseml.report import Layer, Run, RunInfo, Storage, Variant
from sparseml.report.panels.layers import heat_panel
from sparseml.report.panels.tradeoffs import tradeoff_panels


def pruned(
    name: str, group: str, accuracy: float, zeros: int, size: int = 2048, status: str = "finished"
) -> Run:
    run = Run(Path(name), RunInfo(name=name, status=status), group=group)
    storage = Storage(dense=8192, zstd=size)
    run.result.variants = {
        "dense": Variant(metrics={"accuracy": 0.95}, trained=True, samples=400),
        "sparse": Variant(metrics={"accuracy": accuracy}, samples=400, storage=storage),
    }
    run.result.layers = [Layer(name="a.weight", parameters=100, zeros=zeros, asked=zeros / 100)]
    return run


def layer_of(panel: Any, kind: str) -> list[dict[str, Any]]:
    (found,) = [
        one["data"]["values"]
        for one in panel.spec["layer"]
        if one["mark"]["type"] == kind and "y2" not in one["encoding"]
    ]
    return list(found)


RUNS = [
    pruned("one", "CAP", 0.9, 50, 4096),
    pruned("two", "CAP", 0.8, 90, 1024),
    pruned("three", "CAP", 0.84, 90, 2048),
    pruned("lost", "GM", 0.1, 90),
    pruned("ended", "GM", 0.9, 50, status="failed"),
]


def test_lines_go_through_the_means_of_runs_that_came_to_their_end() -> None:
    over_zeros, over_size = tradeoff_panels(RUNS)
    assert (over_zeros.title, over_size.title) == ("Accuracy over zeros", "Accuracy over size")
    means = layer_of(over_zeros, "line")
    assert [(one["x"], one["y"], one["s"]) for one in means] == [
        (0.5, 0.9, "CAP"),
        (0.9, 0.82, "CAP"),
        (0.9, 0.1, "GM"),
    ]
    means = layer_of(over_size, "line")
    assert [(one["x"], one["y"]) for one in means] == [(4, 0.9), (1.5, 0.82), (2, 0.1)]
    grey = [one["tip"].split("\n")[0] for one in layer_of(over_zeros, "point") if one["aside"]]
    assert grey == ["ended"]
    assert [key.label for key in over_zeros.legend] == ["CAP", "GM", "dense", "failed"]


def test_axes_reach_as_far_as_the_data_and_points_tell_of_chance() -> None:
    over_zeros, over_size = tradeoff_panels(RUNS[:3])
    assert over_zeros.spec is not None and over_size.spec is not None
    for spec in (over_zeros.spec, over_size.spec):
        assert not any(spec["encoding"][axis]["scale"]["zero"] for axis in "xy")
    assert over_size.spec["encoding"]["x"]["axis"]["title"] == "size in KiB, zstd"
    assert layer_of(over_zeros, "rule") == [{"y": 0.95}]
    (margins,) = [one for one in over_zeros.spec["layer"] if "y2" in one["encoding"]]
    first = margins["data"]["values"][0]
    # 1.96 sqrt(0.9 * 0.1 / 400)
    assert (first["y"], first["y2"]) == pytest.approx((0.9 - 0.0294, 0.9 + 0.0294), abs=1e-5)
    assert layer_of(over_size, "point")[0]["tip"] == "one\naccuracy 90.00% ±2.94%\n4 KiB with zstd"


def test_without_metrics_or_sizes_there_is_nothing_to_draw() -> None:
    run = pruned("one", "CAP", 0.9, 50)
    run.result.variants["sparse"].storage = None
    assert [panel.key for panel in tradeoff_panels([run])] == ["tradeoff"]
    run.result.variants["sparse"].metrics = {}
    assert tradeoff_panels([run]) == []


def test_layers_times_runs() -> None:
    runs = [pruned(name, "CAP", 0.9, zeros) for name, zeros in (("one", 50), ("two", 25))]
    runs[1].result.layers.append(Layer(name="b.weight", parameters=10, zeros=1))
    panel = heat_panel([*runs, pruned("dense", "dense", 0.9, 0)])
    assert panel is not None and panel.spec is not None
    cells = [(cell["r"], cell["l"], cell["z"]) for cell in panel.spec["data"]["values"]]
    assert cells == [("one", "a", 0.5), ("two", "a", 0.25), ("two", "b", 0.1)]
    assert list(panel.table.rows) == [["a.weight", "50.0%", "25.0%"], ["b.weight", "", "10.0%"]]
    assert heat_panel([]) is None


def test_very_many_layers_are_all_in_the_table() -> None:
    run = pruned("one", "CAP", 0.9, 50)
    run.result.layers = [Layer(name=f"l{n}", parameters=2, zeros=1) for n in range(400)]
    panel = heat_panel([run])
    assert panel is not None and panel.spec is not None
    assert len(panel.spec["data"]["values"]) == 300
    assert len(panel.table.rows) == 400
    assert panel.note.endswith("The first 300 of 400 layers are drawn; the table has all.")
