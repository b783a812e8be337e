"""The sentence, the cards, and the table of several runs."""

from __future__ import annotations

import pytest

from sparseml.report import Flops, Layer, Run, Storage, Variant
from sparseml.report.summary import cards, comparison_lead, comparison_table, run_sentence

from .test_findings import latency, made_run

TIMES = "\N{MULTIPLICATION SIGN}"
GOOD = "Accuracy 89.00% (dense 90.00%) with 50.0% zeros"


def pruned(
    name: str, accuracy: float, zeros: int, size: int = 300, time: float = 1.0, **more: str
) -> Run:
    dense = Variant(
        metrics={"accuracy": 0.9},
        samples=1000,
        trained=True,
        storage=Storage(dense=1000, zstd=900),
        latency=[latency(1.0)],
    )
    sparse = Variant(
        metrics={"accuracy": accuracy},
        samples=1000,
        storage=Storage(dense=1000, zstd=size),
        latency=[latency(time)],
        flops=Flops(dense=10, sparse=5),
    )
    run = made_run(name, dense=dense, sparse=sparse, **more)
    run.group = name.split()[0]
    run.result.layers = [Layer(name="a", parameters=100, zeros=zeros, asked=zeros / 100)]
    return run


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            pruned("CAP", 0.89, 50),
            f"{GOOD}, 3.00{TIMES} smaller with zstd, not faster.",
        ),
        (
            pruned("CAP", 0.89, 50, size=900, time=0.5),
            f"{GOOD}, 2.00{TIMES} as fast.",
        ),
        (pruned("CAP", 0.89, 50, 900, 2.0), f"{GOOD}, takes 2.00{TIMES} as long."),
        (made_run(), ""),
        (made_run(dense=Variant(metrics={"loss": 0.5})), "Loss 0.5."),
    ],
)
def test_a_run_in_a_sentence(run: Run, said: str) -> None:
    assert run_sentence(run) == said


def test_there_are_four_cards() -> None:
    names = [name for name, *_ in cards(pruned("CAP", 0.89, 50))]
    assert names == ["accuracy", "zeros", "size", "latency"]
    bare = made_run(sparse=Variant(flops=Flops(dense=10, sparse=5)))
    assert [name for name, *_ in cards(bare)] == ["operations"]


def test_several_runs_are_led_by_the_sparsest_that_is_near_dense() -> None:
    runs = [pruned("CAP 50", 0.9, 50), pruned("CAP 80", 0.895, 80), pruned("GM 90", 0.7, 90)]
    said, run = comparison_lead(runs)
    assert run is runs[1]
    assert said.startswith(
        "3 runs in 2 groups. Most zeros at less than a point of accuracy below dense: CAP 80. "
        "Accuracy 89.50%"
    )
    said, run = comparison_lead([runs[2], pruned("GM 80", 0.8, 80)])
    assert run is not None and run.name == "GM 80"
    assert "Best accuracy of the pruned models: GM 80." in said
    assert comparison_lead([made_run("a"), made_run("b")]) == ("2 runs in 2 groups.", None)


def test_the_best_of_as_many_zeros_are_bold_and_broken_runs_grey() -> None:
    runs = [
        pruned("GM 50", 0.9, 50, 400),
        pruned("CAP 50", 0.89, 50, 300),  # not told apart by 1,000 samples
        pruned("OBS 50", 0.6, 50, 400, 0.5),
        pruned("GM 90", 0.5, 90),
        pruned("CAP 90", 0.8, 90),
        pruned("OBS 90", 0.2, 90),
        pruned("CAP 80", 0.9, 80),
        pruned("CAP 90 again", 0.95, 90, status="failed"),
    ]
    table = comparison_table(runs, [f"run-{n}" for n in range(len(runs))])
    assert list(table["groups"]) == ["GM", "CAP", "OBS"]
    rows = {row.name: row for rows in table["groups"].values() for row in rows}
    best = {name: row.best for name, row in rows.items()}
    assert best == {
        "GM 50": ["accuracy"],
        "CAP 50": ["accuracy", "size"],
        "OBS 50": ["latency"],
        "GM 90": [],
        "CAP 90": ["accuracy"],
        "OBS 90": [],
        "CAP 80": [],
        "CAP 90 again": [],
    }
    assert [name for name, row in rows.items() if row.broken] == ["CAP 90 again", "OBS 90"]
    assert rows["CAP 90 again"].told == "failed"
