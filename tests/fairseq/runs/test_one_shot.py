"""``sparseml prune`` for models of fairseq as a whole."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from fairseq import checkpoint_utils
from fairseq.models.transformer import TransformerModel
from fairseq_cli import generate, interactive
from safetensors.torch import load_file

from sparseml.cli import main
from sparseml.fairseq import fairseq_files
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.utils.params import iter_layer_params
from sparseml.run import read_masks
from sparseml.utils.ready_recipes import ready_recipes

PRUNERS = ("gm", "cap", "fast_cap", "obs", "mfac")
FEW = "num_grads=6,fisher_block_size=16"
LAYERS = {"pairs": 16, "text": 6}
SEARCH = ("--beam", 3, "--lenpen", 0.7, "--max-len-b", 12)
Paths = dict[str, Path]


def _results(folder: str = "out") -> list[dict[str, Any]]:
    return json.loads(Path(f"{folder}/run/results.json").read_text())["results"]


def _written(sparsity: float, folder: str = "out") -> Path:
    return Path(f"{folder}/run/sparsity={sparsity}/model/checkpoint.pt").absolute()


def _loss_by_hand(data: Path, file: Path, smoothing: float) -> tuple[float, float]:
    """Loss and negative log likelihood in bits a token, sentence by sentence."""
    found, _, task = checkpoint_utils.load_model_ensemble_and_task([str(file)], {"data": str(data)})
    task.load_dataset("valid")
    sentences, sums, tokens = task.dataset("valid"), torch.zeros(2), 0
    for sentence in sentences:
        batch = sentences.collater([sentence])
        with torch.no_grad():
            told = found[0].eval()(**batch["net_input"])[0].log_softmax(-1).flatten(0, 1)
        target = batch["target"].flatten()
        nll, every = -told.gather(1, target[:, None]).sum(), -told.sum()
        spread = smoothing / (told.shape[1] - 1)
        sums += torch.stack([(1 - smoothing - spread) * nll + spread * every, nll])
        tokens += len(target)
    loss, nll = (sums / tokens / math.log(2)).tolist()
    return loss, nll


@pytest.mark.parametrize(("name", "smoothing"), [("pairs", 0.1), ("text", 0.0)])
def test_the_loss_is_that_of_the_file_that_is_written(
    call: Any, corpora: Paths, checkpoints: Paths, name: str, smoothing: float
) -> None:
    flags = ["--model", f"fairseq:{checkpoints[name]}", "--recipe", "recipe.yaml"]
    done = call(corpora[name], *flags, "--sparsities", 0.5, "--max-tokens", 60)
    assert "sparsity |   loss | nll_loss | perplexity |  zeros" in done.out
    dense, sparse = _results()
    assert (dense["zeros"], sparse["zeros"]) == (0, pytest.approx(0.5, abs=1e-3))
    # the pruned one is read by fairseq as it is, which refuses its own checkpoints
    found = [_loss_by_hand(corpora[name], _written(0.5), smoothing)]
    with fairseq_files():
        found.append(_loss_by_hand(corpora[name], checkpoints[name], smoothing))
    for row, (loss, nll) in zip((sparse, dense), found, strict=True):
        assert row["val/loss"] == pytest.approx(loss, rel=1e-5)
        assert row["val/nll_loss"] == pytest.approx(nll, rel=1e-5)
        assert row["val/perplexity"] == pytest.approx(2**nll, rel=1e-5)
    result = json.loads(Path("out/run/sparsity=0.5/result.json").read_text())["variants"]
    assert result["dense"]["trained"] is True
    assert result["dense"]["samples"] == result["sparse"]["samples"] > 0
    assert result["dense"]["flops"]["dense"] > 0
    assert dense["val/loss"] != sparse["val/loss"]


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_bleu_is_that_of_fairseq_generate(
    call: Any, command: Any, corpora: Paths, checkpoints: Paths
) -> None:
    data, model = corpora["pairs"], checkpoints["pairs"]
    flags = ["--model", f"fairseq:{model}", "--recipe", "recipe.yaml", "--sparsities", 0.2]
    done = call(data, *flags, "--bleu", *SEARCH)
    assert "sparsity |   bleu |   loss" in done.out
    join = ["--remove-bpe", "sentencepiece", "--cpu", "--path", _written(0.2)]
    told = command(
        generate.cli_main, data, *join, *SEARCH, "--gen-subset", "valid", "--scoring",
        "sacrebleu", "--max-tokens", 4000,
    )  # fmt: skip
    (shown,) = re.findall(r"BLEU4? = ([\d.]+)", told)
    assert 0 < _results()[1]["val/bleu"] < 100
    assert _results()[1]["val/bleu"] == pytest.approx(float(shown), abs=0.006)
    # what it is given sentence by sentence it translates the same
    Path("given").write_text("s1 s2 s3\n")
    told = command(interactive.cli_main, data, *join, *SEARCH, "--input", "given")
    (translation,) = re.findall(r"^D-0\t\S+\t(.*)", told, re.MULTILINE)
    # dictionaries lie beside the model
    hub = TransformerModel.from_pretrained(str(_written(0.2).parent), "checkpoint.pt")
    (tokens, *_) = hub.generate(hub.binarize("s1 s2 s3"), beam=3, lenpen=0.7, max_len_b=12)
    words = hub.string(tokens["tokens"]).replace(" ", "").replace("\u2581", " ").strip()
    assert words == translation


@pytest.mark.parametrize(
    ("name", "pruner"), [*(("pairs", pruner) for pruner in PRUNERS), ("text", "obs")]
)
def test_every_ready_recipe_prunes(
    call: Any, corpora: Paths, checkpoints: Paths, name: str, pruner: str
) -> None:
    recipe = f"fairseq/one_shot/{pruner}/transformer"
    assert recipe in ready_recipes()
    flags = ["--model", f"fairseq:{checkpoints[name]}", "--recipe", f"recipe:{recipe}", "-gb", 4]
    variables = "sparsity=0.4" if pruner == "gm" else FEW
    call(corpora[name], *flags, "--recipe-args", variables, "--sparsities", 0.4)
    masks = read_masks("out/run/sparsity=0.4/masks.safetensors")
    assert len(masks) == LAYERS[name]
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    assert zeros == pytest.approx(0.4 * sum(mask.numel() for mask in masks.values()), abs=14)
    assert math.isfinite(_results()[1]["val/loss"])
    # the same file is of the model that is written for fairseq
    weights = load_file("out/run/sparsity=0.4/model.safetensors")
    state = torch.load(_written(0.4), weights_only=True)["model"]
    assert all(torch.equal(state[key], value) for key, value in weights.items())
    assert all(bool((state[key][~mask] == 0).all()) for key, mask in masks.items())


BY_SAMPLE = """
pruning_modifiers:
  - !OBSPruningModifier
      params: ['re:(encoder|decoder)\\.layers\\..*PARAMS\\.weight']
      init_sparsity: 0.4
      final_sparsity: 0.4
      start_epoch: 0
      end_epoch: 1
      update_frequency: 1
      num_grads: 6
      fisher_block_size: 16
      fisher_samples: auto
"""


@pytest.mark.parametrize("params", ["fc1", "(proj|fc1)"])
def test_one_gradient_is_of_a_batch_where_layers_begin_with_tokens(
    call: Any, corpora: Paths, checkpoints: Paths, params: str
) -> None:
    Path("each.yaml").write_text(BY_SAMPLE.replace("PARAMS", params))
    flags = ["--model", f"fairseq:{checkpoints['pairs']}", "--recipe", "each.yaml", "-gb", 5]
    done = call(corpora["pairs"], *flags)
    assert done.error.count("one gradient per batch is taken") == 1
    assert math.isfinite(_results()[1]["val/loss"])


def test_as_many_tokens_as_sentences_are_no_sentences(corpora: Paths, checkpoints: Paths) -> None:
    with fairseq_files():
        loaded, _, _ = checkpoint_utils.load_model_ensemble_and_task(
            [str(checkpoints["pairs"])], {"data": str(corpora["pairs"])}
        )
    tokens = torch.full((6, 6), 5)
    inputs = {"src_tokens": tokens, "src_lengths": torch.full((6,), 6)}
    batch = ([], {**inputs, "prev_output_tokens": tokens}, None)
    given = {"data_loader_builder": lambda: [batch], "loss_fn": lambda output, _: output.mean()}
    found = [one for one in iter_layer_params(loaded[0]) if one.name.endswith("fc1.weight")]
    each = GradientSampler(given, {}, "Owner", per_sample=True)
    with pytest.raises(RuntimeError, match="does not begin with the 5 samples"):
        list(each.gradients(loaded[0], found, 2))
    loose = GradientSampler(given, {}, "Owner", per_sample=None)
    assert [one.count for one in loose.gradients(loaded[0], found, 2)] == [1, 1]


@pytest.mark.parametrize("name", ["pairs", "text"])
def test_the_ready_recipe_takes_all_layers_that_are_repeated(checkpoints: Paths, name: str) -> None:
    for pruner in PRUNERS:
        recipe = f"recipe:fairseq/one_shot/{pruner}/transformer"
        given = ["recipe", "check", recipe, "--model", f"fairseq:{checkpoints[name]}", "--json"]
        done = CliRunner().invoke(main, given)
        assert done.exit_code == 0, done.output
        (found,) = json.loads(done.stdout)["modifiers"]
        (match,) = found["matches"]
        state = torch.load(checkpoints[name], weights_only=False)["model"]
        repeated = [key for key, value in state.items() if ".layers." in key and value.ndim == 2]
        assert sorted(match["names"]) == sorted(repeated)


def test_a_pruned_model_is_pruned_again(call: Any, corpora: Paths, checkpoints: Paths) -> None:
    flags = ["--recipe", "recipe.yaml", "--max-val-samples", 7]
    call(corpora["pairs"], "--model", f"fairseq:{checkpoints['pairs']}", *flags)
    first = _results()[1]
    model = Path("out/run/recipe/model/checkpoint.pt")
    call(corpora["pairs"], "--model", f"fairseq:{model}", *flags, "--output", "again")
    assert _results("again")[0]["val/loss"] == pytest.approx(first["val/loss"], abs=1e-6)
    run = Path("out/run/recipe")
    assert (run / "model/recipe.yaml").read_text() == (run / "recipe.yaml").read_text()


def test_the_same_seed_gives_the_same_weights(
    call: Any, corpora: Paths, checkpoints: Paths
) -> None:
    flags = ["--model", f"fairseq:{checkpoints['pairs']}", "--recipe-args", FEW, "-gb", 3]
    flags += ["--recipe", "recipe:fairseq/one_shot/cap/transformer", "--sparsities", 0.5]
    weights = []
    for output, seed in (("a", 1), ("b", 1), ("c", 2)):
        call(corpora["pairs"], *flags, "--seed", seed, "--output", output)
        weights.append(load_file(f"{output}/run/sparsity=0.5/model.safetensors"))
    one, same, other = weights
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert not all(torch.equal(value, other[key]) for key, value in one.items())


def test_the_report_opens(call: Any, corpora: Paths, checkpoints: Paths) -> None:
    flags = ["--model", f"fairseq:{checkpoints['pairs']}", "--recipe", "recipe.yaml"]
    call(corpora["pairs"], *flags, "--sparsities", 0.5, "--report", "--latency-rounds", 2)
    done = CliRunner().invoke(main, ["report", "out/run/sparsity=0.5", "--json"])
    assert done.exit_code == 0, done.output
    assert "nll_loss" in done.stdout
    environment = json.loads(Path("out/run/sparsity=0.5/environment.json").read_text())
    assert {"sacrebleu"} < environment["packages"].keys()
