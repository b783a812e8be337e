"""What does not fit is told in one line, before anything is computed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from sparseml.cli import main
from sparseml.fairseq import fairseq_files
from sparseml.fairseq.hooks import install
from sparseml.fairseq.reading import read_checkpoint
from sparseml.pytorch.utils.saving.files import CheckpointError
from sparseml.run import train

Paths = dict[str, Path]


@pytest.fixture(scope="module")
def spoilt(corpora: Paths, checkpoints: Paths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints that cannot be pruned, and of corpora that are none."""
    folder = tmp_path_factory.mktemp("spoilt")
    with fairseq_files():
        good = torch.load(checkpoints["pairs"], weights_only=True)
    saved = {
        "code": {**good, "extra_state": torch.nn.Linear(1, 1)},
        "weights": good["model"],
        "list": [1, 2],
        "task": {**good, "cfg": {**good["cfg"], "task": {"_name": "masked_lm"}}},
        "own": {**good, "cfg": {**good["cfg"], "task": {"_name": "my_task"}}},
        "shapes": {**good, "model": {**good["model"], "encoder.layers.0.fc1.bias": torch.ones(3)}},
    }
    for name, content in saved.items():
        torch.save(content, folder / f"{name}.pt")
    whole = checkpoints["pairs"].read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)  # which torch reads without a word
    flipped[whole.index(good["model"]["encoder.layers.0.fc1.weight"].numpy().tobytes())] ^= 4
    (folder / "flipped.pt").write_bytes(flipped)
    (folder / "empty.pt").touch()
    (folder / "prose.pt").write_text("not a checkpoint\n")
    (folder / "empty").mkdir()
    shutil.copytree(corpora["pairs"], folder / "no_train")
    for file in (folder / "no_train").glob("train*"):
        file.unlink()
    shutil.copytree(corpora["pairs"], folder / "damaged")
    (folder / "damaged/valid.src-tgt.src.idx").write_bytes(b"nothing")
    return folder


@pytest.fixture
def files(workplace: Path, spoilt: Path, corpora: Paths, checkpoints: Paths) -> dict[str, Any]:
    """Name → good checkpoint or corpus; those that are not lie in the folder to work in."""
    shutil.copytree(spoilt, workplace, dirs_exist_ok=True)
    return {
        "folder": checkpoints["pairs"].parent,
        "good": checkpoints["pairs"],
        "lm": checkpoints["text"],
        **corpora,
    }


MODELS = {
    "none": "fairseq:none.pt: no such file",
    "folder": "is a folder; give one of the checkpoints in it: checkpoint_best.pt",
    "code": "holds torch.nn.modules.linear.Linear, which is not read",
    "weights": "is no checkpoint of fairseq",
    "list": "is no checkpoint of fairseq",
    "cut": "is no checkpoint of fairseq, or damaged",
    "flipped": "flipped.pt is damaged: the checksum of its part",
    "empty": "is no checkpoint of fairseq, or damaged",
    "prose": "is no checkpoint of fairseq, or damaged",
    "task": "is of the task masked_lm: only translation and language_modeling",
    "own": "is of the task my_task, which fairseq does not know: --user-dir DIR",
    "shapes": "its weights do not fit the model that it says it is",
}


def _one_line(error: str, expected: str) -> None:
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and expected in lines[0], error
    assert "Traceback" not in error


@pytest.mark.parametrize("name", MODELS)
def test_models_that_cannot_be_pruned(call: Any, files: dict[str, Any], name: str) -> None:
    model = f"fairseq:{files.get(name, f'{name}.pt')}"
    done = call(files["pairs"], "--model", model, "--recipe", "recipe.yaml", fails=True)
    _one_line(done.error, MODELS[name])


def test_fairseq_itself_reads_no_damaged_file(
    files: dict[str, Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairseq import checkpoint_utils

    install()
    compared: list[Path] = []
    with monkeypatch.context() as patch:
        for home in ("hooks", "reading"):
            patch.setattr(f"sparseml.fairseq.{home}.compare_checksums", compared.append)
        read_checkpoint(Path(files["good"]), "it")
    assert len(compared) == 1, "large files take a while to read"
    assert checkpoint_utils.load_checkpoint_to_cpu(path=str(files["good"]))["model"]
    with pytest.raises(CheckpointError, match=r"flipped\.pt is damaged: the checksum"):
        checkpoint_utils.load_checkpoint_to_cpu("flipped.pt")


DATA = {
    "missing": ("good", [], "--data-dir missing: no such folder"),
    "empty": ("good", [], "has no dictionary for a model of translation; it has none"),
    "text": ("good", ["-s", "src", "-t", "tgt"], "has no dict.src.txt, dict.tgt.txt"),
    "pairs": ("lm", [], "has no dict.txt for a model of language_modeling; it has dict.src.txt"),
    "other": ("good", [], "words, the dictionary in --data-dir"),
    "no_train": ("good", [], "--train-subset train: no_train has no such split, it has"),
    "damaged": ("good", [], "--valid-subset valid of damaged cannot be read"),
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_do_not_belong_to_the_model(call: Any, files: dict[str, Any], name: str) -> None:
    model, flags, expected = DATA[name]
    given = ["--model", f"fairseq:{files[model]}", "--recipe", "recipe.yaml", *flags]
    _one_line(call(files.get(name, name), *given, fails=True).error, expected)


FLAGS = {
    "--gen-subset dev": "--valid-subset dev: ",
    "--max-tokens 3": "--max-tokens 3: ",
    "--user-dir nowhere": "--user-dir nowhere cannot be imported",
    "--remove-bpe wordpiece": "invalid choice: 'wordpiece'",
    "--beam 0": "--beam must be at least 1",
}


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_that_cannot_be(call: Any, files: dict[str, Any], flags: str, capsys: Any) -> None:
    given = [files["pairs"], "--model", f"fairseq:{files['good']}", "--recipe", "recipe.yaml"]
    try:
        error = call(*given, *flags.split(), fails=True).error
    except SystemExit:
        error = capsys.readouterr().err
    _one_line(error, FLAGS[flags])


def test_a_language_model_does_not_translate(call: Any, files: dict[str, Any]) -> None:
    given = ["--model", f"fairseq:{files['lm']}", "--recipe", "recipe.yaml", "--bleu"]
    _one_line(call(files["text"], *given, fails=True).error, "a language model does not translate")


def test_training_is_left_to_fairseq(call: Any, files: dict[str, Any]) -> None:
    given = ["--model", f"fairseq:{files['good']}", "--recipe", "recipe.yaml"]
    done = call(files["pairs"], *given, run=train, fails=True)
    _one_line(done.error, '--user-dir "$(python -m sparseml.fairseq)" --sparseml-recipe RECIPE')


@pytest.mark.parametrize("name", ["none", "code", "task"])
def test_a_check_tells_it_as_well(files: dict[str, Any], name: str) -> None:
    done = CliRunner().invoke(
        main, ["recipe", "check", "recipe.yaml", "--model", f"fairseq:{name}.pt"]
    )
    assert done.exit_code == 2 and MODELS[name] in done.stderr
    assert "Traceback" not in done.output
