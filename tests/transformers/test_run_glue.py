"""``integrations/huggingface/run_glue.py``: training, pruning, going on, and mistakes of users."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification

SHORT = {"num_epochs": 3.0, "warm_epochs": 0.0, "cooldown_epochs": 1.0, "update_steps": 4}
WORDS = (["awful", "boring", "dull", "sad"], ["lovely", "great", "fine", "happy"])
THINGS = ["film", "plot", "cast", "song"]
Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def glue(script: Load) -> ModuleType:
    return script("run_glue")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as of SST-2, in which single words tell the label."""
    folder, source = tmp_path_factory.mktemp("sst2"), torch.Generator().manual_seed(0)
    for split, count in (("train", 160), ("dev", 80)):
        rows = ["sentence\tlabel"]
        for number in range(count):
            first, second = torch.randint(4, (2,), generator=source).tolist()
            told, thing = WORDS[number % 2][first], THINGS[second]
            rows.append(f'a {told} {thing}, they "say .\t{number % 2}')
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def untrained(script: Load, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    sizes = ["--words", "90", "--width", "64", "--positions", "32"]
    script("make_model").main([str(folder), str(texts / "train.tsv"), *sizes])
    return folder


def _flags(model: Path, texts: Path, output: Path, *more: str) -> list[str]:
    given = ["--model_name_or_path", str(model), "--data_dir", str(texts), "--task_name", "sst2"]
    quiet = ["--latency_rounds", "2", "--per_device_train_batch_size", "16", "--use_cpu"]
    return [*given, "--output_dir", str(output), "--do_train", "--do_eval", *quiet, *more]


@pytest.fixture(scope="module")
def dense(
    glue: ModuleType, texts: Path, untrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("runs") / "dense"
    more = "--learning_rate", "2e-3", "--num_train_epochs", "4"
    assert glue.main(_flags(untrained, texts, output, *more)) == 0
    return output


def _recipe(name: str, **variables: float) -> list[str]:
    args = json.dumps({**SHORT, "learning_rate": 1e-3, **variables})
    return ["--recipe", f"recipe:transformers/gradual/{name}", "--recipe_args", args]


def test_without_a_recipe_it_fine_tunes(dense: Path) -> None:
    found = json.loads((dense / "eval_results.json").read_text())
    assert found["eval_accuracy"] > 0.9
    result = json.loads((dense / "run/result.json").read_text())
    assert result["variants"]["dense"]["trained"] is False, "the head was new"
    assert (dense / "report.html").is_file()


def test_a_recipe_prunes_and_the_model_and_a_report_are_left(
    glue: ModuleType, dense: Path, texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "sparse"
    more = _recipe("snip_momentum/bert_2of4"), "--eval_strategy", "epoch", "--logging_steps", "5"
    assert glue.main(_flags(dense, texts, output, *more[0], *more[1:])) == 0
    model = AutoModelForSequenceClassification.from_pretrained(output)
    for name, param in model.named_parameters():
        if ".layer." in name and param.ndim == 2:
            kept = (param.reshape(-1, 4) != 0).sum(dim=1)
            assert kept.max() == 2, name
    assert "SnipMomentumPruningModifier" in (output / "recipe.yaml").read_text()
    assert model.config.id2label == {0: "negative", 1: "positive"}

    run = output / "run"
    result = json.loads((run / "result.json").read_text())
    variants, layers = result["variants"], result["layers"]
    assert variants["dense"]["trained"] is True and variants["sparse"]["samples"] == 80
    assert variants["sparse"]["metrics"]["accuracy"] > 0.9
    assert [len(variants[name]["latency"]) for name in ("dense", "sparse")] == [1, 1]
    pruned = [layer for layer in layers if layer["asked"] is not None]
    zeros = sum(layer["zeros"] for layer in pruned)
    linear = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "emb" not in n)
    assert len(pruned) == 12 and zeros / linear < 0.5
    (note,) = result["notes"]
    assert f"{zeros:,} weights: {zeros / linear:.2%} of the {linear:,} in linear" in note
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    told = {key for one in logged if one["tag"] == "trainer" for key in one["values"]}
    assert {"loss", "learning_rate", "eval_accuracy"} <= told
    assert json.loads((run / "schedule.json").read_text())["steps_per_epoch"] == 10
    assert "of linear and convolution" in (output / "report.md").read_text() or note


def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(
    glue: ModuleType, dense: Path, texts: Path, tmp_path: Path
) -> None:
    whole, second = tmp_path / "whole", tmp_path / "second"
    more = [*_recipe("snip_momentum/bert_4x1"), "--save_steps", "10"]
    assert glue.main(_flags(dense, texts, whole, *more)) == 0
    second.mkdir()
    shutil.copytree(whole / "checkpoint-10", second / "checkpoint-10")
    again = [*more, "--resume_from_checkpoint", "true"]
    assert glue.main(_flags(dense, texts, second, *again)) == 0
    weights, others = (load_file(folder / "model.safetensors") for folder in (whole, second))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert (second / "report.html").is_file()


def test_labels_keep_the_order_of_the_model(
    glue: ModuleType, dense: Path, texts: Path, tmp_path: Path
) -> None:
    swapped = tmp_path / "swapped"
    shutil.copytree(dense, swapped, ignore=shutil.ignore_patterns("checkpoint-*", "run"))
    config = AutoConfig.from_pretrained(swapped)
    config.id2label, config.label2id = (
        {0: "positive", 1: "negative"},
        {"positive": 0, "negative": 1},
    )
    config.save_pretrained(swapped)
    flags = _flags(swapped, texts, tmp_path / "out")
    assert glue.main([flag for flag in flags if flag != "--do_train"]) == 0
    found = json.loads((tmp_path / "out/eval_results.json").read_text())["eval_accuracy"]
    before = json.loads((dense / "eval_results.json").read_text())["eval_accuracy"]
    assert found == pytest.approx(1 - before), "the model now says the contrary"


def _write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def _wrong_files(tmp_path: Path) -> dict[str, list[str]]:
    empty = tmp_path / "empty"
    empty.mkdir()
    no_label = _write(tmp_path / "no_label.tsv", "sentence\tmark\na\t1\n")
    other = _write(tmp_path / "other.tsv", "sentence\tlabel\na\tentailment\nb\t1\n")
    astray = _write(
        tmp_path / "astray.yaml",
        "modifiers:\n  - !ConstantPruningModifier\n      params: ['re:.*blocks.*weight']\n",
    )
    held = tmp_path / "held"
    (held / "checkpoint-3").mkdir(parents=True)
    files = "--train_file", "--validation_file"
    short = [*_recipe("snip_momentum/bert_4x1"), "--num_train_epochs", "2"]
    return {
        "no model": ["--model_name_or_path", str(empty)],
        "no column": [files[0], no_label, files[1], no_label],
        "labels": [files[0], other, files[1], other],
        "length": short,
        "nothing": ["--recipe", astray],
        "hub": ["--model_name_or_path", "google/bert_uncased_L-4_H-256_A-4"],
        "flag": ["--learning_rat", "1"],
        "value": ["--learning_rate", "fast"],
        "checkpoint": ["--resume_from_checkpoint", "true"],
        "held": ["--output_dir", str(held)],
        "steps": [*_recipe("snip_momentum/bert_4x1"), "--max_steps", "20"],
        "recipe": ["--recipe", "recipe:transformers/gradual/snip_momentum/bert_4x2"],
        "variable": ["--recipe", "recipe:transformers/gradual/gm/gpt2", "--recipe_args", "x=1"],
        "architecture": ["--recipe", "recipe:transformers/gradual/gm/llama"],
        "teacher": ["--distill_teacher", "self"],
        "task": ["--task_name", "sst3"],
    }


WRONG = {
    "no model": "holds no model: no config.json",
    "no column": "no_label.tsv has no column 'label', which task sst2 needs; it has",
    "labels": "other.tsv: label 'entailment' is none of task sst2, which has 0 (negative), 1",
    "length": "bert_4x1 takes 3 epochs, --num_train_epochs 2 ends before",
    "steps": "goes on until epoch 3, for 30 steps",
    "nothing": "blocks",
    "hub": "--model_name_or_path google/bert_uncased_L-4_H-256_A-4: ",
    "flag": "there is no flag --learning_rat; did you mean '--learning_rate'",
    "value": "--learning_rate",
    "checkpoint": "out has no checkpoint",
    "held": "holds a run (checkpoint-3): give --resume_from_checkpoint",
    "recipe": "did you mean 'transformers/gradual/snip_momentum/bert_4x1'",
    "variable": "x",
    "architecture": "layers",
    "teacher": "--distill_teacher self: there is no recipe that distils",
    "task": "GLUE has no such task; did you mean 'sst2'",
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("what", WRONG)
def test_mistakes_are_told_in_one_line(
    what: str,
    glue: ModuleType,
    dense: Path,
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = _wrong_files(tmp_path)[what]
    flags = _flags(dense, texts, tmp_path / "out", *more)
    if "--train_file" in more:
        at = flags.index("--data_dir")
        del flags[at : at + 2]
    assert glue.main(flags) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and WRONG[what] in told[0], told
    assert not (tmp_path / "out" / "run").exists()  # or the mended command would be refused


def test_distilling_from_an_untrained_model_is_told(
    glue: ModuleType,
    untrained: Path,
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = _recipe("snip_momentum/bert_4x1")
    assert glue.main(_flags(untrained, texts, tmp_path / "out", *more)) == 2
    told = capsys.readouterr().err
    assert "was not trained for the task" in told and "classifier.bias" in told
