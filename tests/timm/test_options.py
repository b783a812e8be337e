"""Flags, configuration files and progress."""

from __future__ import annotations

import io
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from sparseml.timm import (
    IGNORED_SETTINGS,
    RunError,
    model_kwargs,
    parse,
    shown_progress,
    training_parser,
    with_dashes,
)

NEEDED = ["--data-dir", "x", "--sparseml-recipe", "y"]


def _parse(*flags: str) -> tuple[Namespace, set[str]]:
    return parse(training_parser(""), [*NEEDED, *flags], IGNORED_SETTINGS)


def test_underscores_are_dashes() -> None:
    flags = ["--data_dir=a_b", "-vb", "--val_split", "v_1", "_x"]
    assert with_dashes(flags) == ["--data-dir=a_b", "-vb", "--val-split", "v_1", "_x"]
    assert _parse("--grad_accum_steps", "3")[0].grad_accum_steps == 3


def test_flags_override_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("batch_size: 7\nlr: 1e-3\ndrop_path: 0.2\nmodel_ema: true\nepochs: 5\n")
    args, given = _parse("-c", str(file), "--batch-size", "9")
    assert (args.batch_size, args.lr, args.epochs, args.model_ema) == (9, 0.001, 5, True)
    assert "batch_size" in given and not {"lr", "epochs"} & given
    assert model_kwargs(args) == {"drop_path_rate": 0.2}
    assert model_kwargs(_parse("--model-kwargs", "depth=3", "--num-classes", "4")[0]) == {
        "num_classes": 4,
        "depth": 3,
    }


def test_required_flags_may_be_in_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("data_dir: here\nsparseml_recipe: r.yaml\n")
    args, _ = parse(training_parser(""), ["--config", str(file)])
    assert (args.data_dir, args.sparseml_recipe) == ("here", "r.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch_sizes: 3", r"no setting 'batch_sizes' \(found 3\); did you mean 'batch_size'"),
        ("- 1", "must map names to values, found a list"),
        ("a: [", "is no YAML"),
        ("lr: fast", "lr must be of type float, found 'fast'"),
        ("epochs: 2.5", r"epochs must be a whole number, found 2\.5"),
        ("bce_loss: maybe", "bce_loss must be true or false, found 'maybe'"),
        ("clip_mode: nrom", "clip_mode must be 'norm', 'value' or 'agc', found 'nrom'"),
        ("train_interpolation: linear", "train_interpolation must be '', 'random', 'nearest'"),
        ("remode: pixels", "remode must be 'pixel', 'rand' or 'const', found 'pixels'"),
        ("batch_size: 0", "--batch-size must be at least 1, found 0"),
        (None, "No such file"),
    ],
)
def test_configurations_that_cannot_be_used(
    tmp_path: Path, text: str | None, expected: str
) -> None:
    file = tmp_path / "config.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RunError, match=expected):
        _parse("-c", str(file))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["-vb", "0"], "--val-batch-size must be at least 1, found 0"),
        (["--workers", "-1"], "--workers must be at least 0, found -1"),
        (["--lr", "nan"], "--lr must be at least 0, found nan"),
        (["--seed", "-2"], "--seed must be from 0 to 4294967295, found -2"),
        (["--reprob", "3"], r"--reprob must be from 0 to 1, found 3\.0"),
        (["--smoothing", "1.0"], r"--smoothing must be at least 0 and less than 1, found 1\.0"),
        (["--clip-grad", "-1"], r"--clip-grad must be greater than 0, found -1\.0"),
        (["--input-size", "3", "0", "8"], "--input-size must be at least 1, found 0"),
    ],
)
def test_numbers_out_of_range(flags: list[str], expected: str) -> None:
    with pytest.raises(RunError, match=expected):
        _parse(*flags)


def test_settings_of_timm_that_are_off_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("jsd_loss: true\nsplit_bn: false\nbn_eps: null\nworker_seeding: all\n")
    assert not hasattr(_parse("-c", str(file))[0], "split_bn")


class Terminal(io.StringIO):
    """A text buffer that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def _progress(stream: Any, total: int = 20) -> str:
    with shown_progress("job", total, stream=stream) as advance:
        for done in range(1, total + 1):
            advance(done, f"loss {done}")
    return stream.getvalue()


def test_plain_lines_in_a_log() -> None:
    lines = _progress(io.StringIO()).splitlines()
    assert lines == [f"job {done}/20  loss {done}" for done in (4, 8, 12, 16, 20)]


def test_a_bar_on_a_terminal() -> None:
    shown = _progress(Terminal())
    assert "\r" in shown and "20/20" in shown and "loss 20" in shown and "\n" not in shown


def test_silence_of_other_processes() -> None:
    stream = io.StringIO()
    with shown_progress("job", 3, shown=False, stream=stream) as advance:
        advance(1, "")
    assert stream.getvalue() == ""
