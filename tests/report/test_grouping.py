"""What runs are called and grouped by, side by side."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from sparseml.report import Run, RunDirectory, RunInfo, read_run, write_report
from sparseml.report.grouping import arranged, group_of, method_of, way_of
from sparseml.report.schema import PruningSchedule, Schedule, ScheduledUpdate

from .test_rendering import Page

RECIPE = """
modifiers:
  - !{modifier}
    params: __ALL_PRUNABLE__
{fields}
"""


def recipe(modifier: str, *fields: str) -> str:
    return RECIPE.format(modifier=modifier, fields="\n".join(f"    {field}" for field in fields))


def run_of(text: str | None, name: str = "a", levels: list[float] | None = None) -> Run:
    run = Run(Path("runs") / name, RunInfo(name=name, status="finished"), recipe=text)
    if levels is not None:
        updates = [
            ScheduledUpdate(step=step, epoch=step, lowest=level, highest=level)
            for step, level in enumerate(levels)
        ]
        plan = PruningSchedule(modifier="X", updates=updates)
        run.schedule = Schedule(steps_per_epoch=1, modifiers=[plan])
        run.metrics.series = {"loss": [(len(levels), 1.0)]}
    return run


@pytest.mark.parametrize(
    ("text", "method"),
    [
        (recipe("MagnitudePruningModifier"), "magnitude"),
        (recipe("GlobalMagnitudePruningModifier", "mask_type: unstructured"), "global magnitude"),
        (recipe("CAPruningModifier", "global_sparsity: True"), "global CAP"),
        (recipe("FastCAPruningModifier", "global_sparsity: False"), "FastCAP"),
        (recipe("OBSPruningModifier", "mask_type: '2:4'"), "OBS 2:4"),
        (recipe("MFACPruningModifier"), "MFAC"),
        (recipe("GMPruningModifier", "mask_type: block4"), "magnitude block4"),
        (
            recipe("MovementPruningModifier") + "  - !DistillationModifier\n    hardness: 0.5\n",
            "movement + distillation",
        ),
        (recipe("EpochRangeModifier"), None),
        ("modifiers: [", None),
        ("not a recipe", None),
        (None, None),
    ],
)
def test_methods_are_told_by_recipes(text: str | None, method: str | None) -> None:
    assert method_of(run_of(text)) == method


@pytest.mark.parametrize(
    ("levels", "way"),
    [
        (None, "one shot"),
        ([0.5, 0.5], "fine-tuned"),
        ([0.1, 0.5, 0.9], "gradual"),
        ([0.0, 0.9, 0.0, 0.9], "while training"),
        ([0.9] * 9, "while training"),
    ],
)
def test_ways_are_told_by_what_was_done(levels: list[float] | None, way: str) -> None:
    assert way_of(run_of(recipe("RigLPruningModifier"), levels=levels)) == way


def test_a_run_that_prunes_nothing_was_trained() -> None:
    run = run_of(recipe("EpochRangeModifier"), "dense", levels=[])
    run.schedule = Schedule(steps_per_epoch=1, modifiers=[])
    assert group_of(run) == "dense, trained"


def test_groups_name_what_differs() -> None:
    run, other = run_of(recipe("MagnitudePruningModifier")), run_of(recipe("OBSPruningModifier"))
    run.config, other.config = {"model": "resnet18"}, {"model": "my.models:vit"}
    assert group_of(run) == "magnitude, one shot"
    assert group_of(run, [run, other]) == "resnet18, magnitude, one shot"
    assert group_of(other, [run, other]) == "vit, OBS, one shot"
    # what earlier versions took for a group: the name of the recipe's file
    run.config["sparseml_recipe"] = "recipe:timm/one_shot/gm/resnet"
    for stem in ("resnet", "resnet18 resnet"):
        run.info.group = stem
        assert group_of(run) == "magnitude, one shot"
    run.info.group = None
    run.config["bn_retune"] = 20
    assert group_of(run) == "magnitude, one shot, --bn-retune 20"
    run.info.group = "mine"
    assert group_of(run) == "mine"


def test_batch_norms_that_stayed_are_told_beside_those_measured_anew() -> None:
    text = recipe("MagnitudePruningModifier")
    default, off = run_of(text), run_of(text, "b")
    before, trained = run_of(text, "c"), run_of(text, "d", levels=[0.5, 0.5])
    default.config, off.config = {"bn_retune": None}, {"bn_retune": 0}
    trained.config = {"bn_retune": 0}  # as it is by default in training
    runs = [default, off, before, trained]
    assert [group_of(run, runs) for run in runs] == [
        "magnitude, one shot",
        "magnitude, one shot, --bn-retune 0",
        "magnitude, one shot",
        "magnitude, fine-tuned",
    ]
    assert group_of(off, [off, before, trained]) == "magnitude, one shot"


def one_shot(folder: Path, modifier: str, sparsity: float, accuracy: float, name: str) -> Path:
    """A run as the one-shot script of an earlier version left it."""
    config = {"sparseml_recipe": "some/resnet.yaml"}
    path = folder / f"sparsity={sparsity}"
    with RunDirectory.start(path, name, "resnet", config=config) as run:
        run.write_recipe(recipe(modifier))
        zeros = round(1000 * sparsity)
        layers = [{"name": "a", "parameters": 1000, "zeros": zeros, "asked": sparsity}]
        variants = {
            name: {"metrics": {"top1": value}, "samples": 10_000, "trained": True}
            for name, value in (("dense", 0.915), ("sparse", accuracy))
        }
        run.write_result(variants, layers)
        run._note(created="2026-01-01T00:00:00+00:00")  # then paths decide: cap before gm
    return path


@pytest.fixture
def methods(tmp_path: Path) -> list[Path]:
    """Two folders of runs by two methods, with the same names."""
    found = {"gm": (0.908, 0.421, 0.09), "cap": (0.91, 0.62, 0.117)}
    for method, accuracies in found.items():
        modifier = {"gm": "GlobalMagnitudePruningModifier", "cap": "CAPruningModifier"}[method]
        for sparsity, accuracy in zip((0.5, 0.8, 0.95), accuracies, strict=True):
            name = f"resnet20 sparsity {sparsity}"
            one_shot(tmp_path / method, modifier, sparsity, accuracy, name)
    return [tmp_path / "gm", tmp_path / "cap"]


def test_methods_side_by_side(methods: list[Path], tmp_path: Path) -> None:
    files = write_report(methods, tmp_path / "page")
    report = json.loads(files.json.read_text())
    groups = {"cap": "CAP, one shot", "gm": "global magnitude, one shot"}
    assert [(run["label"], run["group"]) for run in report["runs"]] == [
        (f"resnet20 sparsity {sparsity} ({method})", group)
        for method, group in groups.items()
        for sparsity in (0.5, 0.8, 0.95)
    ]
    assert [finding["text"] for finding in report["comparison"]][:2] == [
        "Best top1 of the pruned models: resnet20 sparsity 0.5 (cap), 91.00%, with 50.0% zeros. "
        "Equal to it within what 10,000 samples can tell: resnet20 sparsity 0.5 (gm).",
        "Most zeros at less than a point of top1 below dense: resnet20 sparsity 0.5 (cap) and "
        "resnet20 sparsity 0.5 (gm), 50.0%.",
    ]
    page = files.html.read_text()
    # a line for each method through its three points, from left to right
    (line,) = [
        layer["data"]["values"]
        for layer in Page(page).specs["tradeoff"]["layer"]
        if layer["mark"]["type"] == "line"
    ]
    assert [(point["s"], point["x"]) for point in line] == [
        (group, x) for group in groups.values() for x in (0.5, 0.8, 0.95)
    ]
    assert "resnet</li>" not in page


def test_the_order_of_arguments_does_not_matter(methods: list[Path], tmp_path: Path) -> None:
    runs = [run for folder in methods for run in sorted(folder.iterdir())]
    pages = [
        write_report(order, tmp_path / "page").html.read_text()
        for order in itertools.islice(itertools.permutations(runs), 0, None, 97)
    ]
    assert len(pages) > 5
    assert len(set(pages)) == 1


def test_names_of_their_own_are_kept(methods: list[Path]) -> None:
    (one, other), third = list(methods[0].iterdir())[:2], next(methods[1].iterdir())
    RunDirectory(third)._note(name="mine")
    named = {run.path: run.name for run in arranged([read_run(p) for p in (one, other, third)])}
    assert named[third] == "mine"
    assert named[one] == read_run(one).info.name
