"""What is told before models and data are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(params=["one_shot_pruning.py", "sparse_training.py"])
def script(request: pytest.FixtureRequest) -> str:
    """Each of the scripts, which behave the same."""
    return str(request.param)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--data-dir", "nowhere"], "--data-dir nowhere: no such folder"),
        (["--val-split", "vall"], "has no folder 'vall' of images; its folders: train, val"),
        (["--dataset", "own_code:gone"], "--dataset own_code:gone: own_code has no 'gone'"),
        (["--class-map", "no.txt"], "--class-map no.txt: no such file"),
        (["--checkpoint", "gone.pth"], "--checkpoint gone.pth: no such file"),
        (["--model", "timm:resnt18"], "did you mean 'resnet18'"),
        (["--model", "own_code:smal"], "own_code has no 'smal'; did you mean 'Small'"),
        (["--recipe", "gone.yaml"], "gone.yaml: the recipe does not exist"),
        (["--output", "gradual.yaml"], "--output: gradual.yaml/run cannot be written: Not a dir"),
        (["--experiment", "old"], "out/old holds a run without a checkpoint: give --overwrite to"),
        (["--experiment", "results"], "out/results holds results: give --overwrite or another"),
    ],
)
def test_what_is_cheap_is_checked_before_a_model_is_built(
    flags: list[Any],
    script: str,
    call: Any,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    expected: str,
) -> None:
    for name in ("old/run", "results/results"):
        file = workplace / f"out/{name}.json"
        file.parent.mkdir(parents=True)
        file.write_text("{}")

    def built(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr("sparseml.timm.session.load_model", built)
    done = call(script, *flags, "--recipe", "gradual.yaml", *more, fails=True)
    assert done.status == 2 and done.error.startswith("error: ") and expected in done.error


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--resume", "gone"], "--resume gone: no such file or folder"),
        (["--initial-masks", "gone"], "--initial-masks gone: no such file or folder"),
        (["--teacher", "timm:resnt18"], "--teacher resnt18: timm"),
        (["--teacher-checkpoint", "w.pth"], "--teacher-checkpoint w.pth needs --teacher MODEL"),
    ],
)
def test_what_only_training_has(
    flags: list[Any], call: Any, more: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparseml.timm.session.load_model", None)
    done = call("sparse_training.py", *flags, "--recipe", "gradual.yaml", *more, fails=True)
    assert done.status == 2 and expected in done.error


def test_a_model_that_does_not_take_the_images(flags: list[Any], script: str, call: Any) -> None:
    more = ["--model", "vit_tiny_patch16_224", "--no-pretrained", "--num-classes", 3]
    more += ["--model-kwargs", "depth=1", "--img-size", 32, "--recipe", "gradual.yaml"]
    done = call(script, *flags, *more, fails=True)
    assert "--model vit_tiny_patch16_224 takes no images of 3 x 32 x 32: " in done.error
    assert "--model-kwargs img_size=N builds it for others" in done.error
