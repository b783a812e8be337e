"""The tasks of the studies fit what is there, and images are kept apart."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import zipfile
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("timm")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "research"))
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module


@pytest.fixture
def tasks(load: Any) -> ModuleType:
    return load("study_tasks")


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    from PIL import Image

    with zipfile.ZipFile(tmp_path / "val.zip", "w") as file:
        for number in range(10):
            name = f"image_{number}.png"
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name)
            file.write(tmp_path / name, f"val/class_{9 - number // 2}/{name}")
        file.mkdir("val/class_0") if hasattr(file, "mkdir") else file.writestr("val/class_0/", "")
    return tmp_path


def test_each_task_names_a_model_and_recipes_that_exist(tasks: ModuleType, load: Any) -> None:
    import timm

    for task in tasks.TASKS.values():
        for reference in (task.model, task.dataset):
            module, _, name = reference.partition(":")
            assert callable(getattr(load(module), name)) if name else timm.is_model(module)
        for recipe in Path(ROOT / "recipes/timm/one_shot").iterdir():
            assert (recipe / f"{task.family}.yaml").is_file()


def test_calibration_and_test_images_are_apart(load: Any, zipped: Path) -> None:
    build = load("research.images.zipped_images").imagenet_sample
    train, test = build(str(zipped), "train"), build(str(zipped), "validation")
    assert (len(train), len(test)) == (4, 6)
    assert train.classes == test.classes == [f"class_{n}" for n in (0, 5, 6, 7, 8, 9)]
    shades = [[image.getpixel((0, 0))[0] for image, _ in some] for some in (train, test)]
    assert shades == [[0, 1, 5, 6], [2, 3, 4, 7, 8, 9]]
    assert [label for _, label in train] == [5, 5, 3, 2]


def test_a_script_is_called_with_the_task(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(tasks.subprocess, "run", lambda command, **_: called.append(command))
    args, task = Namespace(data=Path("/data"), threads=1), tasks.TASKS["mobilenetv2"]
    tasks.call("one.py", task, args, "one_shot/cap", {"damp": 1e-6}, 3, tmp_path / "cap", ["--x"])
    (command,) = called
    flags = dict(itertools.pairwise(command))
    assert command[:2] == [sys.executable, str(ROOT / "research/one.py")]
    assert flags["--checkpoint"] == "/data/weights/imagenet_mobilenetv2_100.safetensors"
    assert flags["--data-dir"] == "/data/imagenet_val1000"
    assert Path(flags["--sparseml-recipe"]).is_file()
    assert json.loads(flags["--recipe-args"]) == {"damp": 1e-6}
    assert (flags["--output"], flags["--experiment"]) == (str(tmp_path), "cap")
    assert (flags["--seed"], flags["-gb"], flags["--mean"]) == ("3", "2", "0.5")
    assert command[-1] == "--x"


def test_what_the_one_shot_script_found_is_kept(
    load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study, results = load("one_shot_study"), load("study_results")
    kept = results.StudyResults(tmp_path / "one_shot.json", study.SETTINGS)
    asked: list[str] = []

    def script(name: str, task: Any, args: Any, recipe: str, *rest: Any) -> None:
        variables, _, folder, flags = rest
        asked.append(f"{recipe} {variables.get('num_grads')} {' '.join(flags)}")
        found = [{"sparsity": 0.0, "val/acc": 0.9, "zeros": 0.0}]
        found += [{"sparsity": s, "val/acc": 1 - s, "zeros": s} for s in (0.5, 0.6)]
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"results": found}))

    monkeypatch.setattr(study, "call", script)
    args = Namespace(runs=tmp_path / "runs", tuned=False)
    study.run(args, kept, "resnet20", "cap", 1, study.SPARSITIES)
    assert asked[0].endswith(" --bn-retune 0")
    assert asked[0].startswith("one_shot/cap 512 --sparsities 0.5 0.6 0.7 0.8 0.9 0.95 ")
    accuracies = {(row["method"], row["sparsity"]): row["accuracy"] for row in kept.rows()}
    assert accuracies == {("dense", 0.0): 0.9, ("cap", 0.5): 0.5, ("cap", 0.6): 0.4}
    assert kept.missing("resnet20", "cap", 1, study.SPARSITIES) == [0.7, 0.8, 0.9, 0.95]


def test_the_last_epoch_of_a_training_counts(
    load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study, results = load("training_study"), load("study_results")
    kept = results.StudyResults(tmp_path / "training.json", study.SETTINGS)
    asked: list[Any] = []

    def script(name: str, task: Any, args: Any, recipe: str, *rest: Any) -> None:
        variables, _, folder, _ = rest
        asked.append((recipe, variables))
        folder.mkdir(parents=True)
        (folder / "summary.csv").write_text("eval/top1,sparsity\n0.9,0.5\n0.7,0.9\n")

    monkeypatch.setattr(study, "call", script)
    study.run(Namespace(runs=tmp_path / "runs"), kept, "small_vit", "gradual_cap", 0.9, 2)
    ((recipe, variables),) = asked
    assert recipe == "gradual/cap"
    assert (variables["final_sparsity"], variables["num_epochs"]) == (0.9, study.EPOCHS)
    assert [(row["accuracy"], row["zeros"]) for row in kept.rows()] == [(0.7, 0.9)]


SCRIPTS = {
    "one_shot_study": ("one_shot", ["--tasks", "resnet20", "--pruners", "gm"], 6),
    "training_study": ("sparse_training", ["--tasks", "small_vit", "--ways", "gradual_gm"], 9),
    "cifar_one_shot_study": ("cifar_one_shot", ["--models", "resnet20", "--methods", "obs"], 15),
}


@pytest.fixture
def start(load: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a study in this process, and return what it printed."""

    def start(script: str, *flags: Any) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, flags)])
        load(script).main()
        return capsys.readouterr().out

    return start


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_study_in_a_fresh_clone_says_what_is_there(
    script: str, start: Any, tmp_path: Path
) -> None:
    name, flags, cells = SCRIPTS[script]
    before = {path: path.read_bytes() for path in (ROOT / "research/results").iterdir()}
    told = start(script, *flags, "--out", tmp_path / "mine")
    assert f"{cells} of {cells} results are there: {ROOT / 'research/results' / name}.*" in told
    assert f"to find them anew: --again, into {tmp_path / 'mine'}" in told
    assert not (tmp_path / "mine").exists()
    assert before == {path: path.read_bytes() for path in (ROOT / "research/results").iterdir()}


@pytest.mark.parametrize("script", ["one_shot_study", "training_study"])
def test_a_study_that_is_to_begin_anew_needs_data(
    script: str, start: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, flags, cells = SCRIPTS[script]
    flags = [*flags, "--again", "--out", tmp_path / "mine"]
    with pytest.raises(SystemExit, match="--data must be the folder"):
        start(script, *flags)
    told = capsys.readouterr().out
    assert f"{cells} of {cells} results are to be found; they go to {tmp_path / 'mine'}" in told
    with pytest.raises(SystemExit, match="found /nowhere"):
        start(script, *flags, "--data", "/nowhere")


def test_what_is_found_anew_lies_elsewhere(
    load: Any, start: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    study = load("one_shot_study")

    def script(name: str, task: Any, args: Any, recipe: str, *rest: Any) -> None:
        folder = rest[2]
        found = [{"sparsity": s, "val/acc": 0.9 - s / 2, "zeros": s} for s in (0, *SPARSITIES)]
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"results": found}))

    monkeypatch.setattr(study, "call", script)
    page, mine = ROOT / "research/README.md", tmp_path / "mine"
    before, flags = page.read_bytes(), ["--tasks", "resnet20", "--pruners", "gm", "--out", mine]
    start("one_shot_study", *flags, "--again", "--data", tmp_path)
    assert {path.name for path in mine.iterdir()} == {
        "one_shot.json", "one_shot.md", "one_shot.svg", "resnet20"
    }  # fmt: skip
    assert "| magnitude, global | 65.00 (1) | 60.00 (1) |" in (mine / "one_shot.md").read_text()
    assert page.read_bytes() == before
    assert "6 of 6 results are there" in start("one_shot_study", *flags, "--again")


SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
