"""``integrations/huggingface/run_qa.py``, on questions about made-up people."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from transformers import AutoModelForQuestionAnswering

Load = Callable[[str], ModuleType]
SIZES = ["--words", "300", "--width", "64", "--positions", "64"]
TEXTS = ["--train", "500", "--validation", "40"]


@pytest.fixture(scope="module")
def qa(script: Load) -> ModuleType:
    return script("run_qa")


@pytest.fixture(scope="module")
def people(script: Load, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    script("make_questions").main([str(folder), *TEXTS])
    return folder


@pytest.fixture(scope="module")
def untrained(script: Load, people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    script("make_model").main([str(folder), str(people / "train.json"), *SIZES])
    return folder


def _flags(model: Path, data: Path, output: Path, *more: str) -> list[str]:
    given = ["--model_name_or_path", str(model), "--output_dir", str(output)]
    files = [f"--{name}_file={data / name}.json" for name in ("train", "validation")]
    windows = ["--max_seq_length", "40", "--doc_stride", "8", "--per_device_train_batch_size", "32"]
    quiet = ["--latency_rounds", "2", "--use_cpu", "--per_device_eval_batch_size", "64"]
    return [*given, *files, *windows, *quiet, "--do_train", "--do_eval", *more]


@pytest.fixture(scope="module")
def dense(
    qa: ModuleType, untrained: Path, people: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("runs") / "dense"
    more = "--learning_rate", "3e-3", "--num_train_epochs", "3"
    assert qa.main(_flags(untrained, people, output, *more)) == 0
    return output


def _scores(output: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((output / "eval_results.json").read_text())
    return found


def test_it_learns_to_answer(dense: Path) -> None:
    before = json.loads((dense / "run/result.json").read_text())["variants"]["dense"]["metrics"]
    found = _scores(dense)
    # of three facts in a text one is asked for
    assert before["exact_match"] < 0.4 < 0.6 < found["eval_exact_match"] <= found["eval_f1"]
    answers = json.loads((dense / "predictions.json").read_text())
    ranked = json.loads((dense / "nbest_predictions.json").read_text())
    assert len(answers) == 120 and all(ranked[name][0]["text"] == answers[name] for name in answers)


def test_a_recipe_prunes_while_the_teachers_starts_and_ends_are_followed(
    qa: ModuleType, dense: Path, people: Path, tmp_path: Path
) -> None:
    variables = {"num_epochs": 2.0, "warm_epochs": 0.0, "cooldown_epochs": 1.0}
    args = json.dumps({**variables, "update_steps": 8, "learning_rate": 1e-3})
    recipe = "recipe:transformers/gradual/snip_momentum/bert_squad_2of4"
    output = tmp_path / "sparse"
    more = "--recipe", recipe, "--recipe_args", args, "--distill_teacher", str(dense)
    assert qa.main(_flags(dense, people, output, *more)) == 0
    assert _scores(output)["eval_f1"] > _scores(dense)["eval_f1"] - 0.15
    model = AutoModelForQuestionAnswering.from_pretrained(output)
    weights = [p for n, p in model.named_parameters() if ".layer." in n and p.ndim == 2]
    assert all(int((weight.reshape(-1, 4) != 0).sum(1).max()) == 2 for weight in weights)
    result = json.loads((output / "run/result.json").read_text())
    assert set(result["variants"]["sparse"]["metrics"]) == {"f1", "exact_match", "loss"}
    assert result["variants"]["sparse"]["samples"] == 120, "questions, not windows"
    logged = (output / "run/metrics.jsonl").read_text()
    assert "DistillationModifier/distillation_loss" in logged


def test_questions_without_an_answer_and_long_texts(
    script: Load, qa: ModuleType, untrained: Path, tmp_path: Path
) -> None:
    more = "--impossible", "0.5", "--people", "4", "--train", "60", "--validation", "10"
    script("make_questions").main([str(tmp_path / "people"), *more])
    flags = _flags(untrained, tmp_path / "people", tmp_path / "out", "--num_train_epochs", "1")
    assert qa.main(flags) == 0
    found = _scores(tmp_path / "out")
    assert {"eval_HasAns_f1", "eval_NoAns_f1", "eval_exact_match"} <= set(found)
    answers = json.loads((tmp_path / "out/nbest_predictions.json").read_text())
    assert len(answers) == 120, "no question is lost to windows"
    assert all(any(one["text"] == "" for one in ranked) for ranked in answers.values())


WRONG = {
    "no files": ([], "give --train_file and --validation_file"),
    "other format": (["--train_file", "{tmp}/other.json"], "SQuAD's format has 'data' here"),
    "no json": (["--validation_file", "{tmp}/text.json"], "text.json is no JSON"),
    "no model": (["--model_name_or_path", "{tmp}"], "holds no model: no config.json"),
    "stride": (["--doc_stride", "39"], "they must overlap by fewer, found a stride of 39"),
    "recipe": (
        ["--recipe", "recipe:transformers/gradual/snip_momentum/distilbert_squad_4x1"],
        "transformer",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_mistakes_are_told_in_one_line(
    what: str,
    qa: ModuleType,
    dense: Path,
    people: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "other.json").write_text('{"rows": []}')
    (tmp_path / "text.json").write_text("Where?")
    more, told = WRONG[what]
    flags = _flags(dense, people, tmp_path / "out", *(one.format(tmp=tmp_path) for one in more))
    if what == "no files":
        flags = [flag for flag in flags if "_file=" not in flag]
    assert qa.main(flags) == 2
    errors = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert len(errors) == 1 and told in errors[0], errors
