"""The sentences of a report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sparseml.report import Flops, Latency, Layer, Run, RunInfo, Storage, Variant
from sparseml.report.comparing import compare_runs
from sparseml.report.findings import run_findings
from sparseml.report.speed import compare_latency


def latency(median: float, spread: float = 0.0, rounds: int = 40, **more: Any) -> Latency:
    return Latency(
        **{
            "batch_size": 8,
            "device": "cpu",
            "threads": 1,
            "rounds": rounds,
            "median_ms": median,
            "lower_quartile_ms": median - spread,
            "upper_quartile_ms": median + spread,
            "fastest_ms": median - spread,
            "slowest_ms": median + spread,
            "samples_per_second": 1.0,
            **more,
        }
    )


def made_run(name: str = "a run", status: str = "finished", **variants: Variant) -> Run:
    run = Run(Path(name), RunInfo(name=name, status=status))
    run.result.variants = variants
    return run


def texts(run: Run) -> list[tuple[str, str]]:
    return [tuple(finding) for finding in run_findings(run)]


@pytest.mark.parametrize(
    ("taken", "before", "kind"),
    [
        (latency(1.0), latency(2.0), "gain"),
        (latency(2.0), latency(1.0), "loss"),
        (latency(1.0), latency(1.0), "same"),
        (latency(1.0), latency(1.02), "same"),  # no spread, but hardly a difference
        (latency(1.0, 0.6), latency(2.0, 0.6), "same"),  # the quartiles overlap
        (latency(1.0, fastest_ms=0.9), latency(2.0, fastest_ms=0.9), "same"),  # disturbed
        (latency(1.0, rounds=9), latency(2.0), "info"),
        (latency(1.0), latency(2.0, rounds=9), "info"),
        (latency(1.0, fastest_ms=None), latency(2.0), "gain"),
        (latency(0.0), latency(1.0), "gain"),
    ],
)
def test_what_counts_as_faster(taken: Latency, before: Latency, kind: str) -> None:
    assert compare_latency(taken, before)[0] == kind


def test_a_shrunk_model_is_faster_and_a_sparse_one_is_not() -> None:
    run = made_run(
        dense=Variant(latency=[latency(4.0)], flops=Flops(dense=1000, sparse=1000)),
        sparse=Variant(latency=[latency(4.0)], flops=Flops(dense=1000, sparse=250)),
        shrunk=Variant(latency=[latency(1.0)], flops=Flops(dense=500, sparse=500)),
    )
    found = texts(run)
    assert (
        "same",
        "Not faster: a batch of 8 on cpu with 1 thread takes the sparse model 4 ms against 4 ms; "
        "that is within the spread.",
    ) in found
    assert (
        "gain",
        "Faster: a batch of 8 on cpu with 1 thread takes the shrunk model 1 ms against 4 ms, "
        "4.00\N{MULTIPLICATION SIGN} as fast as dense.",
    ) in found
    assert any(text.startswith("75.0% of the arithmetic falls on zeros") for _, text in found)
    assert any("500 operations instead of 1,000" in text for _, text in found)
    assert not any(text.startswith("Nothing got faster") for _, text in found)


def test_zeros_alone_are_said_to_save_no_time() -> None:
    both = Variant(latency=[latency(4.0)])
    assert any(
        text.startswith("Nothing got faster: dense kernels") for _, text in
        texts(made_run(dense=both, sparse=both))
    )  # fmt: skip
    few = Variant(latency=[latency(4.0, rounds=3)])
    found = [text for _, text in texts(made_run(dense=few, sparse=few))]
    assert any("3 rounds are too few to tell" in text for text in found)
    assert not any(text.startswith("Nothing got faster") for text in found)


def test_latencies_under_other_conditions_are_not_compared() -> None:
    dense = Variant(latency=[latency(4.0, threads=2)])
    found = texts(made_run(dense=dense, sparse=Variant(latency=[latency(1.0)])))
    unknown = "Nothing is known about speed: no latency was measured against the dense model."
    assert ("info", unknown) in found


@pytest.mark.parametrize(
    ("name", "value", "before", "kind", "said"),
    [
        ("accuracy", 0.97, 0.98, "loss", "97.00%, 1.00 points below the dense model's 98.00%"),
        ("accuracy", 0.98, 0.98, "same", "98.00%, equal to the dense model's 98.00%"),
        ("loss", 1.5, 2.0, "gain", "1.5, 0.5 below the dense model's 2"),
        ("perplexity", 9.0, 8.0, "loss", "9, 1 above the dense model's 8"),
        ("BLEU", 20.0, 19.0, "gain", "20, 1 above the dense model's 19"),
        ("f1", math.nan, 0.9, "same", "not a number, not comparable with the dense model's 90.00%"),
    ],
)
def test_quality(name: str, value: float, before: float, kind: str, said: str) -> None:
    dense, sparse = Variant(metrics={name: before}), Variant(metrics={name: value})
    found = texts(made_run(dense=dense, sparse=sparse))[0]
    assert found == (kind, f"{name[:1].upper()}{name[1:]} is {said}.")


def test_sparsity_asked_and_reached() -> None:
    run = made_run(sparse=Variant())
    run.result.layers = [
        Layer(name="a", parameters=900, zeros=810, asked=0.9),
        Layer(name="b", parameters=100, zeros=0),
    ]
    assert ("gain", "90.0% of the 900 weights that the recipe prunes are zero, as asked.") in texts(
        run
    )
    run.result.layers[0].zeros = 450
    assert (
        "loss",
        "50.0% of the 900 weights that the recipe prunes are zero, asked were 90.0%.",
    ) in texts(run)
    run.result.layers[0].asked = None
    assert ("info", "45.0% of the 1,000 weights that could be pruned are zero.") in texts(run)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("running", "has not finished, or was killed"),
        ("failed", "failed (ValueError: x)"),
        ("interrupted", "was interrupted"),
    ],
)
def test_how_the_run_ended(status: str, said: str) -> None:
    run = made_run(status=status)
    run.info.error = "ValueError: x"
    assert said in texts(run)[0][1]


def test_size_is_told_by_the_best_compressor_that_both_know() -> None:
    dense = Variant(storage=Storage(dense=4096, gzip=4000, zstd=4000))
    sparse = Variant(storage=Storage(dense=4096, gzip=1000))
    assert (
        "gain",
        "The model takes 1000 bytes compressed with gzip instead of 3.9 KiB: "
        "4.00\N{MULTIPLICATION SIGN} smaller.",
    ) in texts(made_run(dense=dense, sparse=sparse))


def test_what_stands_out_among_runs() -> None:
    dense = Variant(
        metrics={"accuracy": 0.9}, latency=[latency(4.0)], storage=Storage(dense=9, zstd=9)
    )

    def pruned(name: str, accuracy: float, zeros: int, size: int) -> Run:
        sparse = Variant(metrics={"accuracy": accuracy}, storage=Storage(dense=9, zstd=size))
        run = made_run(name, dense=dense, sparse=sparse)
        run.result.layers = [Layer(name="a", parameters=100, zeros=zeros, asked=zeros / 100)]
        return run

    runs = [pruned("low", 0.91, 50, 5), pruned("mid", 0.895, 80, 3), pruned("high", 0.5, 95, 2)]
    runs[1].result.variants["shrunk"] = Variant(latency=[latency(2.0)])
    assert [text for _, text in compare_runs(runs)] == [
        "Best accuracy of the pruned models: low, 91.00%, with 50.0% zeros.",
        "Most zeros at less than a point of accuracy below dense: mid, 80.0%.",
        "Smallest with zstd: high, 2 bytes.",
        "Fastest: mid (shrunk), 2.00\N{MULTIPLICATION SIGN} as fast as its dense model for a batch "
        "of 8 on cpu.",
    ]


def test_runs_of_which_nothing_is_known() -> None:
    assert compare_runs([made_run("a"), made_run("b")]) == []
