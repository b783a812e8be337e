"""Flags and configuration files of timm's runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sparseml.run import RunError
from sparseml.run.settings import with_dashes
from sparseml.timm import GLUE, TrainingSettings, model_kwargs

NEEDED = ["--data-dir", "x", "--sparseml-recipe", "y"]


def _parse(*flags: str, needed: Sequence[str] = NEEDED) -> TrainingSettings:
    return GLUE.training_settings([*needed, *flags])


def test_underscores_are_dashes() -> None:
    flags = ["--data_dir=a_b", "-vb", "--val_split", "v_1", "_x"]
    assert with_dashes(flags) == ["--data-dir=a_b", "-vb", "--val-split", "v_1", "_x"]
    assert _parse("--grad_accum_steps", "3").optimizer.grad_accum_steps == 3


def test_flags_override_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("batch_size: 7\nlr: 1e-3\ndrop_path: 0.2\nmodel_ema: true\nepochs: 5\n")
    settings = _parse("-c", str(file), "--batch-size", "9")
    optimizer, schedule = settings.optimizer, settings.schedule
    assert (optimizer.batch_size, schedule.lr, schedule.epochs) == (9, 0.001, 5)
    assert settings.extras.model_ema
    assert "batch_size" in settings.given and not {"lr", "epochs"} & settings.given
    rates = optimizer.drop_rate, optimizer.drop_path_rate
    assert model_kwargs(settings.model, *rates) == {"drop_path_rate": 0.2}
    given = _parse("--model-kwargs", "depth=3", "act=relu", "--num-classes", "4").model
    assert model_kwargs(given) == {"num_classes": 4, "depth": 3, "act": "relu"}


def test_required_flags_may_be_in_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("data_dir: here\nsparseml_recipe: r.yaml\n")
    settings = _parse("--config", str(file), needed=[])
    assert (settings.data.data_dir, settings.run.sparseml_recipe) == ("here", "r.yaml")


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
    assert "split_bn" not in _parse("-c", str(file)).values()


def test_the_file_of_a_training_does_for_one_shot(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("batch_size: 3\ndrop_path: 0.1\nworker_seeding: all\nval_batch_size: 7\n")
    settings = GLUE.one_shot_settings([*NEEDED, "-c", str(file)])
    assert settings.data.val_batch_size == 7 and "batch_size" not in settings.values()
