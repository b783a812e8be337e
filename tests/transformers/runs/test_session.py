"""What a model and its texts give to a run, and what is told where they do not fit together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sparseml.run import Processes, RunError
from sparseml.transformers import GLUE, LabelledTexts, PlainText
from sparseml.transformers.inputs import NO_LOSS
from sparseml.transformers.models import model_folder, short_name

Edit = Callable[[Path], Any]


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _tsv(file: str, text: str) -> Edit:
    return lambda _: Path(file).write_text(text)


ONE = "sentence\tlabel\n"
OWN = ["--train-file", "a.tsv", "--validation-file", "a.tsv"]
TEXT = ["--data", "t.txt"]

# what is done to the folder of the model (bert, or gpt2 for plain text), the data, what is told
WRONG: dict[str, tuple[Edit | None, list[str], str]] = {
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        [],
        "holds no weights, as model.safetensors",
    ),
    "no model": (
        lambda folder: (folder / "config.json").unlink(),
        [],
        "holds no model: no config.json in it, found model.safetensors",
    ),
    "no tokenizer": (
        lambda folder: [file.unlink() for file in folder.glob("[tv]*")],
        [],
        "holds no tokenizer, as tokenizer.json",
    ),
    "no usable configuration": (
        lambda folder: (folder / "config.json").write_text("{"),
        [],
        "config.json is not usable",
    ),
    "damaged weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x08" * 99),
        [],
        "--model mine: the weights are damaged: Error while deserializing header",
    ),
    "outputs of another task": (
        _tsv("a.tsv", ONE + "good\t0\nbad\t1\nso\t2\n"),
        OWN,
        "has 2 outputs, task a needs 3: it was trained for another task",
    ),
    "labels of another task": (
        _tsv("a.tsv", ONE + "good\t7\nbad\t1\n"),
        [*OWN, "--task", "sst2"],
        "a.tsv: label '7' is none of task sst2, which has 0 (negative), 1 (positive)",
    ),
    "a missing column": (
        _tsv("a.tsv", "text\tlabel\ngood\t1\n"),
        [*OWN, "--task", "sst2"],
        "a.tsv has no column 'sentence', which task sst2 needs; it has 'text' and 'label'",
    ),
    "a task that is none": (None, ["--task", "sst3"], "GLUE has no such task"),
    "no such file": (None, ["--train-file", "x.tsv", "--validation-file", "y.tsv"], "no such file"),
    "texts too long": (None, ["--max-length", "99"], "--max-length 99: the model takes no more"),
    "pieces of labelled texts": (None, ["--gs-window", "4"], "only plain text is cut into pieces"),
    "plain text for a classifier": (_tsv("t.txt", "good\n"), TEXT, "--data-dir t.txt"),
}  # fmt: skip
PLAIN: dict[str, tuple[str, list[str], str]] = {
    "no data": ("", [], "give --data-dir, a plain text or a folder with one"),
    "too short for a window": (
        "a good film",
        TEXT,
        "t.txt is too short: 3 tokens, one window takes 32; give a smaller --window",
    ),
    "too short to hold out": (
        "good " * 40,
        TEXT,
        "t.txt is too short: 32 tokens, a window each to train and test takes 64",
    ),
    "not text": ("\x80", TEXT, "t.txt cannot be read as text"),
    "a table": ("", ["--data", "t.tsv"], "a causal model takes plain text (.txt or .txt.gz)"),
    "a folder without": ("", ["--data", "."], ". has no plain text for train (train, .txt or .txt"),
    "one file of two": ("good " * 99, ["--train-file", "t.txt"], "give --data-dir, or both"),
    "windows too long": ("good " * 99, [*TEXT, "--window", "64"], "takes no more than 32 tokens"),
    "parts of no window": (
        "good " * 99,
        [*TEXT, "--window", "16", "--gs-window", "5"],
        "--gs-window 5 must divide --window 16",
    ),
}


def _told(done: Any, expected: str) -> None:
    lines = [line for line in done.error.splitlines() if line.startswith("error: ")]
    assert done.status == 2 and len(lines) == 1 and expected in lines[0], done.error
    assert "Traceback" not in done.error


@pytest.mark.parametrize("case", WRONG)
def test_a_classifier_that_cannot_be_pruned(
    call: Any, folders: dict[str, Path], sentiment: Path, case: str
) -> None:
    edit, flags, expected = WRONG[case]
    shutil.copytree(folders["bert"], "mine")
    if edit is not None:
        edit(Path("mine"))
    data = [] if "--data" in flags or "--train-file" in flags else ["--data", sentiment]
    _told(call("--model", "hf:mine", "--recipe", "bert.yaml", *data, *flags, fails=True), expected)


@pytest.mark.parametrize("case", PLAIN)
def test_plain_text_that_cannot_be_used(call: Any, folders: dict[str, Path], case: str) -> None:
    text, flags, expected = PLAIN[case]
    for name in ("t.txt", "t.tsv"):
        Path(name).write_bytes(text.encode("latin-1"))
    model = f"hf:{folders['gpt2']}"
    _told(call("--model", model, "--recipe", "causal.yaml", *flags, fails=True), expected)


def test_names_that_are_no_folders(call: Any, sentiment: Path) -> None:
    flags = ["--data", sentiment, "--recipe", "bert.yaml", "--model"]
    for name in ("bert-base-uncased", "some-one/some-model", "./models/none"):
        done = call(*flags, f"hf:{name}", fails=True)
        _told(done, f"--model hf:{name}: no such folder, and no such model in the cache of the hub")
        assert "models are not downloaded here" in done.error
    _told(call(*flags, "hf:bert.yaml", fails=True), "hf:bert.yaml is a file")
    with pytest.raises(RunError, match="must be hf: and the folder of a model"):
        model_folder("resnet18")


def test_a_recipe_for_another_architecture(
    call: Any, folders: dict[str, Path], sentiment: Path
) -> None:
    flags = ["--data", sentiment, "--model", f"hf:{folders['bert']}", "--recipe", "causal.yaml"]
    _told(call(*flags, fails=True), "causal.yaml: GlobalMagnitudePruningModifier: pattern")


def _session(flags: list[Any], where: Processes | None = None) -> Any:
    return GLUE.open_session(
        GLUE.one_shot_settings([*map(str, flags), "--recipe", "r.yaml"], None), where or Processes()
    )


@pytest.fixture
def labelled(workplace: Path, folders: dict[str, Path], sentiment: Path) -> list[Any]:
    """Flags for the classifier."""
    return ["--model", f"hf:{folders['bert']}", "--data", sentiment, "--task", "sst2"]


def test_texts_become_tokens_when_asked_for(labelled: list[Any]) -> None:
    session = _session([*labelled, "--max-length", 4, "--max-train-samples", 9, "-gb", 5])
    assert isinstance(session.inputs, LabelledTexts)
    assert (session.training_size, session.evaluated_samples) == (9, 30)
    (_, inputs, labels), *_ = session.grad_sampler()["data_loader_builder"]()
    assert inputs["input_ids"].shape == (5, 4) and labels.shape == (5,)
    assert session.sample_inputs(2)["input_ids"].shape[0] == 2
    assert session.model_name == "bert" == short_name(labelled[1])


def test_classes_in_another_order_are_told_by_name(
    labelled: list[Any], folders: dict[str, Path]
) -> None:
    before = _session(labelled)
    first = before.evaluate(before.model)
    shutil.copytree(folders["bert"], "swapped")
    model = transformers.AutoModelForSequenceClassification.from_pretrained("swapped")
    with torch.no_grad():
        for param in model.classifier.parameters():
            param.copy_(param.flip(0))
    model.config.id2label = {0: "POSITIVE", 1: "NEGATIVE"}
    model.save_pretrained("swapped")
    session = _session(["--model", "hf:swapped", *labelled[2:]])
    assert session.inputs.order == [1, 0]
    assert session.evaluate(session.model) == pytest.approx(first)


def test_a_number_is_told_by_its_correlation(workplace: Path, folders: dict[str, Path]) -> None:
    rows = [f"{'good ' * count}\t{'a ' * count}\t{count / 2}" for count in range(1, 8)]
    Path("n.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]))
    flags = ["--train-file", "n.tsv", "--validation-file", "n.tsv", "--task", "stsb"]
    session = _session(["--model", f"hf:{folders['encoder']}", *flags])
    found = session.evaluate(session.model)
    assert list(found) == ["pearson", "spearmanr", "loss"]
    inputs, labels = session.inputs.collate(list(session.inputs.validation))
    with torch.no_grad():
        told = session.model(**inputs).logits[:, 0]
    assert found["loss"] == pytest.approx(float((told - labels).square().mean()), rel=1e-5)


def test_padding_carries_no_loss(folders: dict[str, Path]) -> None:
    texts = PlainText(torch.zeros(1, 2), torch.zeros(1, 2))
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 6, 5, generator=generator), torch.arange(12).view(2, 6) % 5
    labels[1, 3:] = NO_LOSS
    output = type("Output", (), {"logits": logits})
    parts = [(logits[:1], labels[:1]), (logits[1:, :3], labels[1:, :3])]
    sums = [
        float(texts.loss(type("Output", (), {"logits": some}), told)) * (told.shape[1] - 1)
        for some, told in parts
    ]
    assert float(texts.loss(output, labels)) == pytest.approx(sum(sums) / 7)
    scores = texts.scores()
    scores.add(output, labels)
    assert scores.found(Processes())["loss"] == pytest.approx(sum(sums) / 7)


def test_gradients_of_parts_of_pieces(
    workplace: Path, folders: dict[str, Path], story: Path
) -> None:
    flags = [story, "--model", f"hf:{folders['llama']}", "--window", 16]
    whole, parts = (_session([*flags, *more]) for more in ([], ["--gs-window", 4, "-gb", 3]))
    assert (whole.training_size, parts.training_size) == (19, 76)
    (_, inputs, _), *_ = parts.grad_sampler()["data_loader_builder"]()
    assert inputs["input_ids"].shape == (3, 4)
    assert whole.evaluate(whole.model) == parts.evaluate(parts.model)


@pytest.mark.usefixtures("warm")
def test_two_processes_evaluate_as_one(
    call: Any, folders: dict[str, Path], sentiment: Path
) -> None:
    flags = ["--data", sentiment, "--model", f"hf:{folders['bert']}", "--recipe", "bert.yaml"]
    flags += ["--sparsities", 0.5, "--latency-rounds", 0, "--no-report", "--device", "cpu"]
    call(*flags)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = Path(__file__).resolve().parents[3] / "research/one_shot_pruning_hf.py"
    command = [*start, str(script), *map(str, flags), "--output", "two", "--experiment", "run"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=540)
    one, two = (
        json.loads(Path(f"{name}/run/results.json").read_text())["results"]
        for name in ("out", "two")
    )
    for row, other in zip(one, two, strict=True):
        assert row["val/accuracy"] == other["val/accuracy"]
        assert row["val/loss"] == pytest.approx(other["val/loss"])
