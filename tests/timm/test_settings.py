"""Flags and configuration files of timm's runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from sparseml.run import RunError
from sparseml.run.settings import leaves, with_dashes
from sparseml.timm import GLUE, OneShotSettings, TrainingSettings, model_kwargs
from sparseml.timm.training_setup import learning_rate

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
        ("scale: 0.5", r"scale must be a list of 2, found 0\.5"),
        ("input_size: [3, 8]", r"input_size must be a list of 3, found \[3, 8\]"),
        ("mean: [0.5, x, 0.5]", "mean must be of type float, found 'x'"),
        ("workers: true", "workers must be of type int, found True"),
        ("aa: [a, b]", r"aa must be of type str, found \['a', 'b'\]"),
        ("model_kwargs: depth=3", "model_kwargs must map names to values, found 'depth=3'"),
        ("prefetcher: 1", "prefetcher must be true or false, found 1"),
        (
            "batch_sizes: 3\nmodle: a\nlrr: 0.1\nsplit_bn: true\nnothing: null",
            r"there is no setting 'batch_sizes' \(found 3\); did you mean 'batch_size'.*"
            r"no setting 'modle' \(found 'a'\); did you mean 'model'.*"
            r"no setting 'lrr' \(found 0\.1",
        ),
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


def test_null_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    keys = _parse().values()
    file.write_text("".join(f"{key}: null\n" for key in [*keys, "no_prefetcher", "unknown"]))
    assert _parse("-c", str(file)).values() == {**keys, "config": str(file)}
    file.write_text("".join(f"{key}: ''\n" for key in ("output", "dataset", "resume", "class_map")))
    assert _parse("-c", str(file)).values() == {**keys, "config": str(file)}
    with pytest.raises(SystemExit):
        file.write_text("data_dir: null\n")
        _parse("-c", str(file), needed=NEEDED[2:])


def test_the_settings_of_a_run_give_the_same_run(tmp_path: Path) -> None:
    file = tmp_path / "args.yaml"
    values = _parse("--opt-kwargs", "a=1", "--mean", "0.1", "0.2", "--dist-bn", "").values()
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
    file.write_text(yaml.safe_dump(plain))
    again = _parse("-c", str(file), needed=[]).values()
    assert {**again, "config": None} == plain | {
        key: again[key] for key, value in values.items() if isinstance(value, tuple)
    }


def test_negated_keys(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("no_prefetcher: false\nno-save-last: true\n")
    settings = _parse("-c", str(file))
    assert settings.data.prefetcher and not settings.checkpoints.save_last


def test_what_timm_writes_goes_through(caplog: pytest.LogCaptureFixture) -> None:
    file = Path(__file__).with_name("timm_args.yaml")
    settings = _parse("-c", str(file), needed=NEEDED[2:])
    assert not caplog.text
    assert settings.data.data_dir == "images" and settings.run.device == "cuda"
    own = {"config", "data_dir", "sparseml_recipe", "model", "device", "pretrained", "epochs"}
    plain = _parse().values()
    for name, value in settings.values().items():
        if name not in own | {"drop_rate", "lr_base_scale", "checkpoint", "amp_dtype"}:
            same = list(value) if isinstance(value, (list, tuple)) else value
            assert same == (list(plain[name]) if isinstance(same, list) else plain[name]), name
    one_shot = GLUE.one_shot_settings([*NEEDED[2:], "-c", str(file)])
    assert one_shot.values()["data_dir"] == "images" and not caplog.text


def test_flags_of_timm_without_effect_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("jsd_loss: true\nsplit_bn: false\nbn_eps: null\nworker_seeding: all\ngp: max\n")
    values = _parse("-c", str(file), "--torchcompile", "--lr-noise", "0.4", "0.9").values()
    assert not {"split_bn", "jsd_loss", "gp"} & values.keys()
    assert [record.getMessage() for record in caplog.records] == [
        "without effect here: jsd_loss True, gp max, torchcompile True, lr_noise 0.4 0.9"
    ]


@pytest.mark.parametrize(
    "flags",
    [
        ["imgs", "--model", "a"],
        ["--model", "a", "imgs", "--sparsities", "0.5"],
        ["--sparsities", "0.5", "--amp", "imgs"],
        ["imgs", "--data-dir", "imgs/"],
        ["--data_dir=imgs"],
    ],
)
def test_the_folder_may_stand_alone(flags: list[str]) -> None:
    settings = GLUE.one_shot_settings([*NEEDED[2:], *flags])
    assert settings.values()["data_dir"].rstrip("/") == "imgs"
    training = [flag for flag in flags if flag not in ("--sparsities", "0.5")]
    assert _parse(*training, needed=NEEDED[2:]).data.data_dir.rstrip("/") == "imgs"


def test_a_folder_on_the_command_line_comes_before_that_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data_dir: other\n")
    flags = ["-c", str(tmp_path / "config.yaml"), "imgs"]
    settings = _parse(*flags, needed=NEEDED[2:])
    assert settings.data.data_dir == "imgs" and "data_dir" in settings.given


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--batch-sizes", "3"], "unrecognized arguments: --batch-sizes; did you mean '--batch-s"),
        (["a", "b"], "unrecognized arguments: a b"),
        (["--workers", "x"], "argument -j/--workers: invalid int value: 'x'"),
    ],
)
def test_flags_that_are_not_there_are_told_in_one_line(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        _parse(*flags)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith(f"error: {expected}")
    assert error.count("\n") == 1 and error.endswith("--help lists all flags\n")


def test_two_folders_are_one_too_many() -> None:
    with pytest.raises(RunError, match="--data-dir is given twice: x, and other without its name"):
        _parse("other")


def test_every_flag_is_described_and_the_help_ends_with_examples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for parse in (GLUE.one_shot_settings, GLUE.training_settings):
        with pytest.raises(SystemExit):
            parse(["--help"], "sparseml run")
        shown = capsys.readouterr().out
        assert shown.startswith("usage: sparseml run FOLDER --sparseml-recipe FILE [--flag VALUE")
        examples = shown.partition("\nexamples:\n")[2].strip().splitlines()
        assert len(examples) >= 3
        for line in examples:
            flags = line.partition("#")[0].split()[2:]
            if "--config" not in flags:
                assert parse(flags, None).values()["sparseml_recipe"]
    for kind in (OneShotSettings, TrainingSettings):
        assert [leaf.name for leaf in leaves(kind) if not leaf.flag.help] == []


@pytest.mark.parametrize(
    ("flags", "lr"),
    [
        ([], 0.2),
        (["--opt", "adamw"], 0.2),
        (["--lr-base-scale", "sqrt"], 0.1 * 2**0.5),
        (["--opt", "adamw", "--lr-base-scale", ""], 0.1 * 2**0.5),
        (["--lr-base-scale", ""], 0.2),
        (["--lr", "0.3"], 0.3),
    ],
)
def test_the_learning_rate_follows_the_batch(flags: list[str], lr: float) -> None:
    settings = _parse("-b", "128", "--grad-accum-steps", "4", *flags)
    assert learning_rate(settings, processes=1) == pytest.approx(lr)


def test_the_file_of_a_training_does_for_one_shot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("batch_size: 3\ndrop_path: 0.1\nworker_seeding: all\nval_batch_size: 7\n")
    settings = GLUE.one_shot_settings([*NEEDED, "-c", str(file)])
    assert (
        settings.data.val_batch_size == 7
        and not caplog.text
        and "batch_size" not in settings.values()
    )
