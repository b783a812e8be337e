"""``sparseml train`` for models of Transformers as a whole."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from sparseml.run import read_masks, train

GRADUAL = r"""
epochs: 4
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: eval(epochs)}
  - !MagnitudePruningModifier
      params: ['re:.*\.layers?\.\d+\..*(query|key|value|dense|_proj)\.weight']
      init_sparsity: 0.25
      final_sparsity: 0.75
      start_epoch: 0
      end_epoch: eval(epochs - 1)
      update_frequency: 0.5
"""
DISTIL = "  - !DistillationModifier {hardness: 1.0, temperature: 1.0}\n"


@pytest.fixture
def flags(workplace: Path, folders: dict[str, Path], sentiment: Path) -> list[Any]:
    """Flags to train the classifier."""
    (workplace / "gradual.yaml").write_text(GRADUAL)
    (workplace / "distil.yaml").write_text(GRADUAL + DISTIL)
    model = ["--model", f"hf:{folders['bert']}", "--data", sentiment, "--task", "sst2"]
    return [*model, "-b", 4, "--lr", 0.01, "--recipe", "gradual.yaml"]


def _rows() -> list[dict[str, float]]:
    with Path("out/run/summary.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_a_classifier_learns_while_it_is_pruned(call: Any, flags: list[Any]) -> None:
    done = call(*flags, "--weight-decay", 0.01, "--warmup-epochs", 0.5, run=train)
    rows = _rows()
    assert len(rows) == 4 and [row["sparsity"] for row in rows][-1] == pytest.approx(0.75)
    assert rows[-1]["train/loss"] < 0.8 * rows[0]["train/loss"]
    assert rows[-1]["eval/accuracy"] > 0.8
    assert rows[-1]["lr"] == 0 and rows[0]["lr"] > rows[1]["lr"]
    assert "epoch 4/4  train loss" in done.out
    masks, weights = read_masks("out/run/masks.safetensors"), load_file("out/run/model.safetensors")
    assert len(masks) == 12
    for name, mask in masks.items():
        assert float((~mask).float().mean()) == pytest.approx(0.75)
        assert bool((weights[name][~mask] == 0).all())
    kept = transformers.AutoModelForSequenceClassification.from_pretrained("out/run/model")
    assert all(torch.equal(kept.state_dict()[key], value) for key, value in weights.items())
    result = json.loads(Path("out/run/result.json").read_text())["variants"]
    assert result["sparse"]["metrics"]["accuracy"] == pytest.approx(rows[-1]["eval/accuracy"])
    assert {"bert_last.pth", "bert_sparsity=0.75_best.pth"} <= {
        path.name for path in Path("out/run/checkpoints").iterdir()
    }


def test_a_resumed_training_equals_one_that_was_not(call: Any, flags: list[Any]) -> None:
    call(*flags, "--checkpoint-freq", 1, run=train)
    whole = load_file("out/run/model.safetensors")
    rates = [row["lr"] for row in _rows()]
    folder = Path("out/run/checkpoints")
    shutil.copy(folder / "bert_epoch=1.pth", folder / "bert_last.pth")
    done = call(*flags, "--resume", "out/run", run=train)
    assert "resumed from" in done.out and [row["lr"] for row in _rows()] == rates
    resumed = load_file("out/run/model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    shutil.copy(folder / "bert_epoch=1.pth", folder / "bert_last.pth")
    call(*flags, "--resume", "out/run", "--no-resume-opt", run=train)
    assert [row["lr"] for row in _rows()] == pytest.approx(rates)


def test_a_causal_model_and_its_best_loss(
    call: Any, flags: list[Any], folders: dict[str, Path], story: Path
) -> None:
    given = ["--model", f"hf:{folders['llama']}", "--data", story, "--window", 16]
    given += ["--recipe", "gradual.yaml", "-b", 4, "--lr", 0.01, "--clip-grad", 0]
    call(*given, "--grad-accum-steps", 2, "--sched", "constant", run=train)
    rows = _rows()
    assert list(rows[0])[2:4] == ["eval/loss", "eval/perplexity"]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"] and rows[-1]["lr"] == 0.01
    (best,) = Path("out/run/checkpoints").glob("*0.75_best.pth")
    kept = torch.load(best, weights_only=False)["extra"]["progress"]["best"]
    reached = [row["eval/loss"] for row in rows if row["sparsity"] == pytest.approx(0.75, abs=5e-3)]
    assert kept["loss"] == min(reached)


def test_accumulated_gradients_are_those_of_a_larger_batch(
    call: Any, flags: list[Any], folders: dict[str, Path], story: Path
) -> None:
    given = ["--model", f"hf:{folders['llama']}", "--data", story, "--window", 16]
    given += ["--recipe", "gradual.yaml", "--max-train-samples", 16, "--lr", 0.001]
    weights = []
    for output, batch, steps in (("large", 8, 1), ("small", 4, 2)):
        more = ["-b", batch, "--grad-accum-steps", steps, "--output", output]
        call(*given, *more, run=train)
        weights.append(load_file(f"{output}/run/model.safetensors"))
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_mixed_precision(call: Any, flags: list[Any], kind: str) -> None:
    call(*flags, "--amp", "--amp-dtype", kind, "--recipe-args", "epochs=2", run=train)
    rows = _rows()
    assert rows[-1]["sparsity"] == pytest.approx(0.75)
    assert all(row["train/loss"] < 0.9 for row in rows)
    assert rows[-1]["lr"] == 0  # no step was left out


def test_a_teacher_is_learned_from(call: Any, flags: list[Any], folders: dict[str, Path]) -> None:
    call(*flags, "--output", "dense", "--recipe-args", "epochs=3", run=train)
    distil = [*flags[:-1], "distil.yaml"]
    call(*distil, "--teacher", "hf:dense/run/model", run=train)
    taught = transformers.AutoModelForSequenceClassification.from_pretrained("out/run/model")
    teacher = transformers.AutoModelForSequenceClassification.from_pretrained("dense/run/model")
    tokens = torch.arange(5, 19).view(2, 7)
    with torch.no_grad():
        told, own = (model.eval()(tokens).logits.softmax(1) for model in (teacher, taught))
    torch.testing.assert_close(own, told, atol=0.25, rtol=0)
    assert _rows()[-1]["train/loss"] < 0.1  # how far it is from the teacher


def _other_tokens(folder: Path) -> None:
    words = (folder / "vocab.txt").read_text().replace("dull", "slow")
    (folder / "vocab.txt").write_text(words)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--recipe", "distil.yaml"], "distil.yaml distils from a teacher: give --teacher hf:DIR"),
        (["--teacher", "self"], "gradual.yaml has no modifier that distils from it"),
        (["--recipe", "distil.yaml", "--teacher", "hf:none"], "--teacher hf:none: no such folder"),
        (["--recipe", "distil.yaml", "--teacher", "hf:other"], "hf:other has other tokens than"),
        (["--epochs", 2], "gradual.yaml takes 4 epochs, --epochs 2 ends before"),
        (["--warmup-epochs", 9], "--warmup-epochs 9 take the whole run of 96 steps"),
        (["--lr", 1e30, "--clip-grad", 0], "the loss is nan at step"),
        (["--opt-betas", 0.9, 1.0], "--opt-betas must be at least 0 and less than 1, found 1.0"),
    ],
)
def test_a_training_that_cannot_be(
    call: Any, flags: list[Any], folders: dict[str, Path], more: list[Any], expected: str
) -> None:
    shutil.copytree(folders["bert"], "other")
    _other_tokens(Path("other"))
    done = call(*flags, *more, run=train, fails=True)
    lines = [line for line in done.error.splitlines() if line.startswith("error: ")]
    assert done.status == 2 and len(lines) == 1 and expected in lines[0], done.error


def test_rates_that_the_recipe_sets_are_not_those_of_the_flags(call: Any, flags: list[Any]) -> None:
    rate = "  - !SetLearningRateModifier {start_epoch: 0, learning_rate: 0.002}\n"
    Path("rate.yaml").write_text(GRADUAL + rate)
    done = call(*flags, "--recipe", "rate.yaml", "--recipe-args", "epochs=2", run=train)
    assert {row["lr"] for row in _rows()} == {0.002}
    assert "--lr: without effect, as rate.yaml sets the learning rate" in done.error
