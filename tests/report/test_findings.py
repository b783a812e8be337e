"""The sentences of a report."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from sparseml.report import Flops, Latency, Layer, Run, RunInfo, Storage, Variant
from sparseml.report.findings import compare_runs, run_findings
from sparseml.report.formats import difference_text
from sparseml.report.quality import compare_latency
from sparseml.report.summary import summary_cells


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


def measured(value: float, samples: int | None, name: str = "accuracy", **more: Any) -> Variant:
    return Variant(metrics={name: value}, samples=samples, **more)


def texts(run: Run) -> list[tuple[str, str]]:
    return [tuple(finding) for finding in run_findings(run)]


@pytest.mark.parametrize(
    ("taken", "before", "kind"),
    [
        (latency(1.0), latency(2.0), "gain"),
        (latency(2.0), latency(1.0), "loss"),
        (latency(1.0), latency(1.0), "same"),
        (latency(1.0), latency(1.02), "same"),  # no spread, but hardly a difference
        (latency(1.0, 0.2), latency(1.08, 0.2), "same"),  # the quartiles overlap
        (latency(1.0, 0.6), latency(2.0, 0.6), "info"),  # they do, but the medians differ
        (latency(3.81, 2.0), latency(1.63, 0.9), "info"),
        (latency(1.0, fastest_ms=0.9), latency(2.0, fastest_ms=0.9), "info"),  # disturbed
        (latency(1.0, settled=False), latency(2.0, settled=False), "info"),
        (latency(1.0, settled=True), latency(2.0, settled=True), "gain"),
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
        "Not faster: a batch of 8 on cpu with 1 thread takes the sparse model 4 ms against 4 ms, "
        "a difference of 0%.",
    ) in found
    assert (
        "gain",
        "Faster: a batch of 8 on cpu with 1 thread takes the shrunk model 1 ms against 4 ms, "
        "4.00\N{MULTIPLICATION SIGN} as fast as dense.",
    ) in found
    assert any(text.startswith("75.0% of the arithmetic falls on zeros") for _, text in found)
    assert any("500 operations instead of 1,000" in text for _, text in found)
    assert not any(text.startswith("Nothing got faster") for _, text in found)


def test_what_is_left_of_a_shrunk_model_is_told() -> None:
    run = made_run(
        dense=Variant(parameters=1000, storage=Storage(dense=4000)),
        shrunk=Variant(
            parameters=250, storage=Storage(dense=1000), description="kept 2 of 8 heads"
        ),
    )
    found = texts(run)
    left = "With what is zero removed, 250 of 1,000 parameters are left (kept 2 of 8 heads)."
    assert ("gain", left) in found
    size = "The shrunk model takes 1000 bytes instead of 3.9 KiB: 4.00\N{MULTIPLICATION SIGN}"
    assert ("gain", f"{size} smaller.") in found


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
        ("f1", math.nan, 0.9, "info", "not a number, not comparable with the dense model's 90.00%"),
    ],
)
def test_quality(name: str, value: float, before: float, kind: str, said: str) -> None:
    dense, sparse = measured(before, 10_000, name=name, trained=True), measured(value, 10_000, name)
    found = texts(made_run(dense=dense, sparse=sparse))[0]
    assert found == (kind, f"{name[:1].upper()}{name[1:]} is {said}.")


@pytest.mark.parametrize(
    ("value", "samples", "trained", "kind", "said"),
    [
        # one image more than dense, of 250, tells nothing; nor do six less
        (0.904, 250, True, "same", "equal to the dense model's 90.00% within what 250 samples can "
         "tell (±5.21 points)"),
        (0.876, 250, True, "same", "equal to the dense model's 90.00% within what 250 samples can "
         "tell (±5.52 points)"),
        (0.5, 250, True, "loss", "40.00 points below the dense model's 90.00%"),
        (0.91, 10_000, True, "gain", "1.00 points above the dense model's 90.00%"),
        (0.91, None, True, "info", "1.00 points above the dense model's 90.00%; on how many "
         "samples is not recorded"),
        (0.99, 250, None, "info", "9.00 points above the dense model's 90.00%; that one's "
         "weights are not recorded as trained"),
    ],
)  # fmt: skip
def test_what_samples_can_tell(
    value: float, samples: int | None, trained: bool | None, kind: str, said: str
) -> None:
    dense = measured(0.9, samples, trained=trained)
    found = texts(made_run(dense=dense, sparse=measured(value, samples)))[0]
    assert found == (kind, f"Accuracy is {value:.2%}, {said}.")


def test_an_untrained_model_is_no_baseline() -> None:
    run = made_run(dense=measured(0.1, 250, trained=False), sparse=measured(0.24, 250))
    assert texts(run)[0] == (
        "info",
        "Accuracy is 24.00%. The run began with weights that were not trained: there is no dense "
        "model to measure it by.",
    )
    assert summary_cells(run)["accuracy"] == ("24.00%", "")
    (found, *_) = compare_runs([run, run])[1:]
    assert found.text == (
        "The runs began with weights that were not trained: there is no dense model to measure the "
        "pruned ones by."
    )


def test_a_run_that_was_cut_short_ended_with_no_model() -> None:
    run = made_run(status="running", dense=measured(0.9, 250, trained=True))
    assert texts(run)[1] == ("info", "No accuracy or other final metric was recorded.")
    run.info.status = "finished"
    assert texts(run)[0] == ("info", "Accuracy is 90.00%.")


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


def pruned(
    name: str, accuracy: float, zeros: int = 50, size: int = 5, samples: int | None = 10_000
) -> Run:
    dense = measured(
        0.9, samples, trained=True, latency=[latency(4.0)], storage=Storage(dense=9, zstd=9)
    )
    sparse = measured(accuracy, samples, storage=Storage(dense=9, zstd=size))
    run = made_run(name, dense=dense, sparse=sparse)
    run.result.layers = [Layer(name="a", parameters=100, zeros=zeros, asked=zeros / 100)]
    return run


def told(runs: list[Run]) -> list[str]:
    return [text for _, text in compare_runs(runs)]


def test_what_stands_out_among_runs() -> None:
    runs = [pruned("low", 0.91, 50, 5), pruned("mid", 0.895, 80, 3), pruned("high", 0.5, 95, 2)]
    runs[1].result.variants["shrunk"] = Variant(latency=[latency(2.0)])
    assert told(runs) == [
        "Best accuracy of the pruned models: low, 91.00%, with 50.0% zeros.",
        "Most zeros at less than a point of accuracy below dense: mid, 80.0%.",
        "Smallest with zstd at less than a point of accuracy below dense: mid, 3 bytes.",
        "Fastest: mid (shrunk), 2.00\N{MULTIPLICATION SIGN} as fast as its dense model for a batch "
        "of 8 on cpu.",
    ]


def test_what_stands_out_does_not_depend_on_names_and_order() -> None:
    """Runs of one name are runs of their own, whichever comes first."""
    runs = [pruned("a", 0.95, 50), pruned("a", 0.895, 80), pruned("a", 0.5, 95, 2)]
    assert told(runs)[:2] == [
        "Best accuracy of the pruned models: a, 95.00%, with 50.0% zeros.",
        "Most zeros at less than a point of accuracy below dense: a, 80.0%.",
    ]
    assert all(told(list(order)) == told(runs) for order in itertools.permutations(runs))


def test_what_samples_cannot_tell_apart_is_not_called_best() -> None:
    few = [pruned("a", 0.904, 50, samples=250), pruned("b", 0.9, 80, samples=250)]
    assert told([*few, pruned("c", 0.5, 90, samples=250)])[0] == (
        "Best accuracy of the pruned models: a, 90.40%, with 50.0% zeros. Equal to it within what "
        "250 samples can tell: b."
    )
    unknown = [pruned("a", 0.904, samples=None), pruned("b", 0.9, samples=None)]
    assert told(unknown)[0].endswith(
        "On how many samples is not recorded, so others may be as good."
    )


def test_a_small_model_that_lost_much_is_no_gain() -> None:
    runs = [pruned("a", 0.116, 95, 2), pruned("b", 0.3, 90, 3)]
    assert "No pruned model is less than a percentage point below dense." in told(runs)
    assert not any("mallest" in text for text in told(runs))


def test_less_than_a_point_is_what_is_shown() -> None:
    exact, at_most, below = (pruned("a", value) for value in (0.89, 0.89004, 0.8901))
    other, no = pruned("b", 0.5), "No pruned model is less than a percentage point below dense."
    assert "1.00 points below" in difference_text("accuracy", 0.89004, 0.9)
    assert no in told([exact, other]) and no in told([at_most, other])
    assert "Most zeros at less than a point of accuracy below dense: a, 50.0%." in told(
        [below, other]
    )


def test_notes_of_several_runs_are_told_beside_the_comparison() -> None:
    runs = [made_run(name) for name in "abc"]
    for run, notes in zip(runs, (["both", "own"], ["both"], []), strict=True):
        run.result.notes = notes
    assert told(runs) == ["both (a and b)"]
    assert told(runs[:2]) == ["both"]


def test_runs_of_which_nothing_is_known() -> None:
    assert compare_runs([made_run("a"), made_run("b")]) == []
