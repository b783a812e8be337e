"""``sparseml prune`` for models of Transformers as a whole."""

from __future__ import annotations

import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from sparseml.run import masks_of_run, read_masks
from sparseml.utils.ready_recipes import ready_recipes

PRUNERS = ("cap", "fast_cap", "obs", "mfac", "gm", "gw")
FEW = "num_grads=6,fisher_block_size=16"


def _results() -> list[dict[str, Any]]:
    return json.loads(Path("out/run/results.json").read_text())["results"]


def test_a_classifier_by_its_accuracy(call: Any, folders: dict[str, Path], sentiment: Path) -> None:
    flags = ["--task", "sst2", "--model", f"hf:{folders['bert']}", "--recipe", "bert.yaml"]
    done = call(sentiment, *flags, "--sparsities", 0.5, 0.8, "-vb", 7)
    rows = _results()
    assert [row["zeros"] for row in rows] == [0, pytest.approx(0.5), pytest.approx(0.8, abs=1e-3)]
    assert list(rows[0]) == ["sparsity", "val/accuracy", "val/loss", "zeros", "file"]
    assert "sparsity | accuracy |   loss |  zeros" in done.out
    result = json.loads(Path("out/run/sparsity=0.5/result.json").read_text())
    dense = result["variants"]["dense"]
    assert (dense["samples"], dense["trained"]) == (30, True)
    assert dense["flops"]["dense"] > dense["parameters"]

    # what the table says is what the model in its folder answers, text by text
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folders["bert"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["bert"])
    lines = gzip.decompress((sentiment / "dev.tsv.gz").read_bytes()).decode().splitlines()[1:]
    pairs = [line.split("\t") for line in lines]
    with torch.no_grad():
        logits = [model.eval()(**tokenizer(text, return_tensors="pt")).logits for text, _ in pairs]
    labels = torch.tensor([int(label) for _, label in pairs])
    told = torch.cat(logits)
    assert rows[0]["val/accuracy"] == pytest.approx(
        float((told.argmax(1) == labels).float().mean())
    )
    assert rows[0]["val/loss"] == pytest.approx(float(cross_entropy(told, labels)), abs=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_causal_model_by_its_loss(
    call: Any, folders: dict[str, Path], story: Path, name: str
) -> None:
    flags = ["--model", f"hf:{folders[name]}", "--recipe", "causal.yaml", "--window", 16]
    call("--data", story, *flags, "--sparsities", 0.6, "--held-out", 0.2, "-vb", 3)
    rows = _results()
    assert list(rows[0]) == ["sparsity", "val/loss", "val/perplexity", "zeros", "file"]
    for row in rows:
        assert row["val/perplexity"] == pytest.approx(math.exp(row["val/loss"]))
    # 25 pieces of 16 tokens, the last five of which are held out
    model = transformers.AutoModelForCausalLM.from_pretrained(folders[name]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[name])
    text = gzip.decompress(story.read_bytes()).decode()
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"]).view(25, 16)[20:]
    with torch.no_grad():
        own = model(input_ids=tokens, labels=tokens).loss
    assert rows[0]["val/loss"] == pytest.approx(float(own), abs=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_the_folder_is_read_by_transformers_and_pruned_again(
    call: Any, folders: dict[str, Path], sentiment: Path, story: Path, name: str
) -> None:
    flags: list[Any] = ["--model", f"hf:{folders[name]}", "--window", 16, "--data", story]
    recipe, kind = "causal.yaml", transformers.AutoModelForCausalLM
    if name == "bert":
        flags[2:] = ["--data", sentiment]
        recipe, kind = "bert.yaml", transformers.AutoModelForSequenceClassification
    call(*flags, "--recipe", recipe, "--sparsities", 0.5)
    run = Path("out/run/sparsity=0.5")
    model, info = kind.from_pretrained(run / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    transformers.AutoTokenizer.from_pretrained(run / "model")
    assert (run / "model/recipe.yaml").read_text() == (run / "recipe.yaml").read_text()
    weights, masks = load_file(run / "model.safetensors"), read_masks(run / "masks.safetensors")
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items())
    assert masks and all(bool((state[key][~mask] == 0).all()) for key, mask in masks.items())
    assert masks_of_run(str(run)).keys() == masks.keys()
    first = _results()[1]
    flags[1] = f"hf:{run / 'model'}"
    call(*flags, "--recipe", recipe, "--sparsities", 0.7, "--output", "again")
    again = json.loads(Path("again/run/results.json").read_text())["results"][0]
    assert again["val/loss"] == pytest.approx(first["val/loss"], abs=1e-6)


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_every_ready_recipe_prunes(
    call: Any, folders: dict[str, Path], sentiment: Path, story: Path, name: str, pruner: str
) -> None:
    family = "bert" if name == "bert" else "causal"
    recipe = f"transformers/one_shot/{pruner}/{family}"
    assert recipe in ready_recipes()
    data = [sentiment, "--task", "sst2"] if name == "bert" else [story, "--window", 16]
    flags = [*data, "--model", f"hf:{folders[name]}", "--recipe", f"recipe:{recipe}", "-gb", 2]
    variables = {"gm": "sparsity=0.4", "gw": "num_grads=6"}.get(pruner, FEW)
    call(*flags, "--recipe-args", variables, "--sparsities", 0.4)
    masks = read_masks("out/run/sparsity=0.4/masks.safetensors")
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    assert zeros == pytest.approx(0.4 * sum(mask.numel() for mask in masks.values()), abs=14)
    layers = {"bert": 12, "gpt2": 8, "llama": 14}[name]
    assert len(masks) == layers
    assert math.isfinite(_results()[1]["val/loss"])


def test_second_order_keeps_more_of_a_trained_model(call: Any, story: Path, tmp_path: Path) -> None:
    data = Path(
        os.environ.get("SPARSEML_DATA", Path(__file__).resolve().parents[4] / "shared/data")
    )
    model = data / "weights/tinystories_llama_260k"
    if not model.is_dir():
        pytest.skip(f"no trained model in {model}: set SPARSEML_DATA")
    losses = {}
    for pruner in ("gm", "cap"):
        flags = [data / "tinystories/sample.txt.gz", "--model", f"hf:{model}", "--window", 128]
        flags += ["--max-val-samples", 48, "--held-out", 0.2, "-gb", 1, "--overwrite"]
        recipe = f"recipe:transformers/one_shot/{pruner}/causal"
        more = [] if pruner == "gm" else ["--recipe-args", "num_grads=192,fisher_block_size=32"]
        call(*flags, "--recipe", recipe, *more, "--sparsities", 0.5)
        losses["dense"], losses[pruner] = (row["val/loss"] for row in _results())
    assert losses["dense"] < 2.1
    assert losses["cap"] < losses["gm"] - 0.5


def test_half_precision_is_near(call: Any, folders: dict[str, Path], sentiment: Path) -> None:
    flags = [sentiment, "--model", f"hf:{folders['bert']}", "--recipe", "bert.yaml"]
    call(*flags, "--sparsities", 0.5)
    full = _results()
    call(*flags, "--sparsities", 0.5, "--amp", "--overwrite")
    for row, whole in zip(_results(), full, strict=True):
        assert row["val/loss"] == pytest.approx(whole["val/loss"], abs=0.02)
        assert row["val/loss"] != whole["val/loss"]


def test_the_same_seed_gives_the_same_masks(
    call: Any, folders: dict[str, Path], story: Path
) -> None:
    flags = [story, "--model", f"hf:{folders['gpt2']}", "--window", 16, "--gs-window", 8]
    flags += ["--recipe", "recipe:transformers/one_shot/cap/causal", "--recipe-args", FEW, "-gb", 2]
    weights = []
    for output, seed in (("a", 1), ("b", 1), ("c", 2)):
        call(*flags, "--sparsities", 0.5, "--seed", seed, "--output", output)
        weights.append(load_file(f"{output}/run/sparsity=0.5/model.safetensors"))
    one, same, other = weights
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert not all(torch.equal(value, other[key]) for key, value in one.items())


def test_an_encoder_gets_a_head_and_the_report_is_told(
    call: Any, folders: dict[str, Path], sentiment: Path
) -> None:
    flags = ["--model", f"hf:{folders['encoder']}", "--recipe", "bert.yaml", "--sparsities", 0.5]
    done = call(sentiment, *flags, "--task", "sst2")
    assert "has no weights for classifier.bias, classifier.weight: they are random" in done.error
    result = json.loads(Path("out/run/sparsity=0.5/result.json").read_text())
    assert result["variants"]["dense"]["trained"] is False
    config = json.loads(Path("out/run/sparsity=0.5/model/config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
