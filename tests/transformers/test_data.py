"""GLUE's tasks, their data from files, and what is told where the data are wrong."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from sparseml.run import RunError

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

from sparseml.transformers.data import (
    GLUE_TASKS,
    TextTask,
    batches_of,
    encode,
    glue_task,
    label_order,
    load_classifier,
    metrics_of,
    open_texts,
    score,
)
from sparseml.transformers.question_answering import load_reader

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["a", "good", "bad", "film", "is", "not", "this"],
]
SST2 = 'sentence\tlabel\na good "film\t1\nthis is bad\t0\nnull\t0\n'


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(WORDS))
    return BertTokenizerFast(vocab=str(vocab))


def _config(**more: Any) -> BertConfig:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertConfig(vocab_size=len(WORDS), intermediate_size=16, **sizes, **more)


def _write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_tasks_have_the_columns_and_classes_of_glue() -> None:
    assert glue_task("SST-2") is GLUE_TASKS["sst2"] and glue_task("STS-B").is_regression
    assert {name: task.outputs for name, task in GLUE_TASKS.items()} == {
        "cola": 2, "mnli": 3, "mrpc": 2, "qnli": 2, "qqp": 2, "rte": 2, "sst2": 2, "stsb": 1,
        "wnli": 2,
    }  # fmt: skip
    assert glue_task("mnli").validation == ("validation_matched", "validation_mismatched")
    with pytest.raises(RunError, match="mrp: GLUE has no such task; did you mean 'mrpc'"):
        glue_task("mrp")


@pytest.mark.parametrize("suffix", ["tsv", "tsv.gz", "csv", "json", "jsonl", "json.gz", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    import pandas

    rows = [{"sentence": 'a good "film', "label": 1}, {"sentence": "null", "label": 0}]
    for split in ("train", "dev"):
        path, frame = tmp_path / f"{split}.{suffix}", pandas.DataFrame(rows)
        if suffix == "parquet":
            frame.to_parquet(path)
        elif suffix.startswith("tsv"):
            _write(path, 'sentence\tlabel\na good "film\t1\nnull\t0\n')
        elif suffix == "csv":
            frame.to_csv(path, index=False)
        else:
            lines = suffix == "jsonl"
            text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
            _write(path, text)
    data = open_texts("sst2", data_dir=str(tmp_path))
    assert data.train.to_list() == data.validation.to_list() == rows


def test_files_of_glue_itself_are_read(tmp_path: Path) -> None:
    mrpc = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta film\tthis film\n"
    files = [str(_write(tmp_path / f"{name}.tsv", mrpc)) for name in ("train", "dev")]
    found = open_texts("mrpc", train_file=files[0], validation_file=files[1])
    assert found.train[0] == {"sentence1": "a film", "sentence2": "this film", "label": 1}
    mnli = "index\tsentence1\tsentence2\tgold_label\n0\ta film\tthis\tneutral\n"
    (tmp_path / "mnli").mkdir()
    for name in ("train", "dev_matched", "dev_mismatched"):
        _write(tmp_path / "mnli" / f"{name}.tsv", mnli)
    data = open_texts("mnli", str(tmp_path / "mnli"))
    assert data.train[0] == {"premise": "a film", "hypothesis": "this", "label": 1}
    assert set(data.splits) == {"train", "validation_matched", "validation_mismatched"}


def test_a_task_of_ones_own_is_read_off_its_files(tmp_path: Path) -> None:
    text = "id,first,second,label\n1,a,b,sad\n2,c,d,glad\n"
    files = [str(_write(tmp_path / f"{name}.csv", text)) for name in ("mood", "dev")]
    data = open_texts(None, None, *files)
    assert data.task == TextTask("mood", ("first", "second"), ("glad", "sad"))
    assert data.train["label"][:] == [1, 0]
    graded = _write(tmp_path / "grades.csv", "text,label\na,0.5\nb,1\n")
    assert open_texts(None, None, str(graded), str(graded)).task.is_regression
    ones = _write(tmp_path / "ones.csv", "text,label\na,1\nb,2\n")
    zeros = _write(tmp_path / "zeros.csv", "text,label\na,1\nb,0\n")
    assert open_texts(None, None, str(ones), str(ones)).train["label"][:] == [0, 1]
    with pytest.raises(RunError, match=r"zeros.csv: label '0' is none of task ones, which has"):
        open_texts(None, None, str(ones), str(zeros))


def test_wrong_data_are_told_in_a_line(tmp_path: Path) -> None:
    sst2 = str(_write(tmp_path / "train.tsv", SST2))
    graded = str(_write(tmp_path / "graded.tsv", "sentence1\tsentence2\tlabel\na\tb\thigh\n"))
    mnli = str(_write(tmp_path / "mnli.tsv", "sentence1\tsentence2\tlabel\na\tb\t2\n"))
    damaged = str(_write(tmp_path / "damaged.json", "{nothing"))
    wrong: dict[str, tuple[Any, ...]] = {
        "train.tsv has no column 'sentence1', which task mrpc needs; it has 'sentence' and 'lab": (
            "mrpc", None, sst2, sst2,
        ),
        r"label '2' is none of task mrpc, which has 0 \(not_equivalent\), 1 \(equiv": (
            "mrpc", None, mnli, mnli,
        ),
        "label 'high' is no number, as task stsb has them": ("stsb", None, graded, graded),
        "none.tsv: no such file": ("sst2", None, sst2, str(tmp_path / "none.tsv")),
        "damaged.json cannot be read as JSON": ("sst2", None, damaged, sst2),
        "empty.csv holds no rows": (
            "sst2", None, str(_write(tmp_path / "empty.csv", "")), sst2,
        ),
        r"notes.txt must be a file .tsv, .csv": (
            "sst2", None, str(_write(tmp_path / "notes.txt", "a")), sst2,
        ),
        "nowhere: no such folder": ("sst2", str(tmp_path / "nowhere")),
        "validation must be one file .* found none called validation or dev": (
            "sst2", str(tmp_path),
        ),
        "--validation-file is needed with --train-file": ("sst2", None, sst2),
        "not both": ("sst2", str(tmp_path), sst2, sst2),
        "give --task-name": (),
    }  # fmt: skip
    for message, arguments in wrong.items():
        with pytest.raises(RunError, match=message) as caught:
            open_texts(*arguments)
        assert "\n" not in str(caught.value)


def test_without_a_network_the_hub_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(RunError, match=r"sst2: the data cannot be had from the hub .*--data-dir"):
        open_texts("sst2")


def test_rows_become_tokens_in_batches_of_the_longest(tmp_path: Path, tokenizer: Any) -> None:
    file = str(_write(tmp_path / "train.tsv", SST2))
    data = open_texts("sst2", None, file, file)
    rows = encode(data.train, data.task, tokenizer, max_length=4, order=[1, 0])
    assert rows[0]["input_ids"] == [2, *tokenizer.convert_tokens_to_ids(["a", "good"]), 3]
    assert rows["labels"][:] == [0, 1, 1]
    batch = batches_of(tokenizer)([rows[0], rows[2]])
    assert batch["input_ids"].shape == (2, 4) and batch["labels"].tolist() == [0, 1]
    assert batches_of(tokenizer, half=True)([rows[2]])["input_ids"].shape == (1, 8)
    full = encode(data.train, data.task, tokenizer, max_length=16, pad_to_max_length=True)
    assert {len(ids) for ids in full["input_ids"]} == {16}
    assert len(data.shortened(2).train) == 2 and len(data.shortened(2).validation) == 3


def test_metrics_are_those_of_glue() -> None:
    outputs, labels = numpy.array([[2.0, 1], [0, 1], [0, 1], [3, 1]]), numpy.array([0, 1, 0, 1])
    assert score(glue_task("mrpc"), outputs, labels) == {"accuracy": 0.5, "f1": 0.5}
    assert score(glue_task("sst2"), outputs, labels) == {"accuracy": 0.5}
    assert score(glue_task("cola"), outputs, 1 - labels)["matthews_correlation"] == 0.0
    found = score(glue_task("stsb"), [[1.0], [2.0], [4.0]], [1.0, 2.0, 3.0])
    assert found["spearmanr"] == pytest.approx(1.0) and 0.98 < found["pearson"] < 1.0
    assert score(glue_task("stsb"), [[1.0], [1.0]], [1.0, 2.0]) == {"pearson": 0, "spearmanr": 0}
    assert [metric.name for metric in metrics_of(glue_task("mrpc"))] == ["accuracy", "f1", "loss"]


def test_a_model_keeps_the_order_of_its_labels(caplog: pytest.LogCaptureFixture) -> None:
    mnli = glue_task("mnli")
    known = _config(id2label={0: "CONTRADICTION", 1: "entailment", 2: "neutral"})
    assert label_order(known, mnli) == [1, 2, 0]
    plain = _config(num_labels=3)
    assert label_order(plain, mnli) == [0, 1, 2] and plain.id2label[2] == "contradiction"
    assert not caplog.messages
    other = _config(id2label={0: "x", 1: "y", 2: "z"})
    assert label_order(other, mnli) == [0, 1, 2] and "labels are x, y, z" in caplog.text


def test_a_classifier_comes_from_its_folder(tmp_path: Path, tokenizer: Any) -> None:
    task, folder = glue_task("sst2"), tmp_path / "encoder"
    BertModel(_config()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = load_classifier(str(folder), task)
    assert found.order == [0, 1] and "classifier.weight" in found.fresh
    assert found.model.config.id2label == {0: "negative", 1: "positive"}
    found.model.save_pretrained(folder)
    assert load_classifier(str(folder), task).fresh == ()
    with pytest.raises(RunError, match=r"has 2 outputs, task mnli needs 3: it was trained for ano"):
        load_classifier(str(folder), glue_task("mnli"))
    BertForSequenceClassification(_config(num_labels=1)).save_pretrained(tmp_path / "graded")
    tokenizer.save_pretrained(tmp_path / "graded")
    assert load_classifier(str(tmp_path / "graded"), glue_task("stsb")).order is None


def test_a_folder_without_a_model_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(RunError, match=r"the folder holds no model: no config.json, but notes.txt"):
        load_classifier(str(tmp_path), glue_task("sst2"))
    with pytest.raises(RunError, match=r"--teacher ./none: no such folder"):
        load_classifier("./none", glue_task("sst2"), "--teacher")


def _damage(file: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(content)


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"junk junk")


def _widened(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 24}))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_damage("model.safetensors", b"\x08" * 99), "the weights are damaged: Error while"),
        (_damage("model.safetensors", b""), "the weights are damaged: Error while"),
        (_damage("config.json", b"{"), "cannot be loaded: "),
        (_damage("tokenizer.json", b"{"), "cannot be loaded: "),
        (_pickled, "cannot be loaded: "),
        (_widened, "the weights have other shapes than config.json says"),
    ],
    ids=["weights", "empty weights", "configuration", "tokenizer", "pickle", "shapes"],
)
def test_damaged_files_are_told_of_in_one_line(
    damage: Callable[[Path], None], told: str, tmp_path: Path, tokenizer: Any
) -> None:
    BertForSequenceClassification(_config()).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    damage(tmp_path)
    for load in (lambda: load_classifier(str(tmp_path), glue_task("sst2"), "--model"),
                 lambda: load_reader(str(tmp_path), "--model")):  # fmt: skip
        with pytest.raises(RunError, match=re.escape(f"--model {tmp_path}")) as error:
            load()
        assert told in str(error.value) and "\n" not in str(error.value)


def test_no_network_is_told_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(RunError, match=r"--model some/bert: no such folder, .* cannot be reached"):
        load_classifier("some/bert", glue_task("sst2"), "--model")
