"""Every recipe for Transformers models: valid, and pruning what it says of its architecture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import transformers
from click.testing import CliRunner

from sparseml.cli import main
from sparseml.cli.model_source import build_model
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.utils.ready_recipes import ready_recipes

ROOT = Path(__file__).resolve().parents[2] / "recipes/transformers"
RECIPES = sorted((ROOT / "gradual").rglob("*.yaml"))
ARGS = re.compile(r"--recipe_args '(.*?)'", re.DOTALL)
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
BERT = {"hidden_size": 64, "intermediate_size": 256, **SMALL}
LLAMA = {**BERT, "num_key_value_heads": 2}
LINEAR = ("Linear", "Conv1D")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def _architecture(recipe: Path) -> transformers.PretrainedConfig:
    family, task = recipe.stem.split("_")[0], "squad" in recipe.stem
    head = "QuestionAnswering" if task else "SequenceClassification"
    if family == "bert":
        return transformers.BertConfig(**BERT, architectures=[f"BertFor{head}"])
    if family == "distilbert":
        config = {"dim": 64, "hidden_dim": 256, "n_layers": 2, "n_heads": 4, "vocab_size": 99}
        return transformers.DistilBertConfig(**config, architectures=[f"DistilBertFor{head}"])
    if family == "llama":
        return transformers.LlamaConfig(**LLAMA, architectures=["LlamaForCausalLM"])
    tokens = {"bos_token_id": 0, "eos_token_id": 0}
    config = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 99, **tokens}
    return transformers.GPT2Config(**config, architectures=["GPT2LMHeadModel"])


def _checked(recipe: Path, config: Any, folder: Path, *flags: str) -> dict[str, Any]:
    config.save_pretrained(folder)
    arguments = ["recipe", "check", str(recipe), "--model", f"hf:{folder}", *flags]
    done = CliRunner().invoke(main, [*arguments, "--json", "--steps-per-epoch", "230"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def _pruned(found: dict[str, Any]) -> list[str]:
    matches = [m for one in found["modifiers"] for m in one.get("matches") or ()]
    return [name for match in matches for name in match["names"]]


def _in_layers(folder: Path) -> set[str]:
    """The weights of all linear layers that are repeated, which have a number in their names."""
    modules = build_model(f"hf:{folder}").named_modules()
    return {
        f"{name}.weight"
        for name, module in modules
        if type(module).__name__ in LINEAR and re.search(r"\.\d+\.", name)
    }


@pytest.mark.parametrize("recipe", RECIPES, ids=_name)
def test_recipe_prunes_attention_and_mlps_of_its_architecture(recipe: Path, tmp_path: Path) -> None:
    names = _pruned(_checked(recipe, _architecture(recipe), tmp_path))
    assert len(names) == len(set(names)), "two modifiers prune the same"
    assert set(names) == _in_layers(tmp_path) and names


RELATIVES = [
    ("snip_momentum/bert_4x1", "Roberta", "SequenceClassification", BERT),
    ("snip_momentum/bert_mixed", "Electra", "SequenceClassification", BERT),
    ("gm/llama", "Mistral", "CausalLM", LLAMA),
    ("gm/llama", "Qwen2", "CausalLM", LLAMA),
    ("gm/llama", "Gemma", "CausalLM", {**LLAMA, "head_dim": 16}),
]


@pytest.mark.parametrize(("recipe", "kind", "head", "sizes"), RELATIVES)
def test_the_relatives_that_a_recipe_names_fit_it(
    recipe: str, kind: str, head: str, sizes: dict[str, int], tmp_path: Path
) -> None:
    file = ROOT / "gradual" / f"{recipe}.yaml"
    named = {"Roberta": "RoBERTa", "Electra": "ELECTRA"}.get(kind, kind)
    assert named in file.read_text()
    tokens = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    architecture = [f"{kind}For{head}"]
    config = getattr(transformers, f"{kind}Config")(**sizes, **tokens, architectures=architecture)
    names = _pruned(_checked(file, config, tmp_path))
    # the heads of RoBERTa and ELECTRA have layers of their own, without a number
    assert set(names) == _in_layers(tmp_path)


@pytest.mark.parametrize("recipe", RECIPES, ids=_name)
def test_the_settings_that_comments_tell_are_variables(recipe: Path) -> None:
    comments = [line for line in recipe.read_text().splitlines() if line.startswith("#")]
    told = " ".join(line.removeprefix("#").strip() for line in comments)
    for arguments in ARGS.findall(told):
        manager = ScheduledModifierManager.from_yaml(str(recipe), recipe_variables=arguments)
        for pruner in manager.pruning_modifiers:
            assert 0 <= pruner.start_epoch < pruner.end_epoch < manager.max_epochs
            assert pruner.leave_enabled


def test_the_published_schedule_of_bert_mini_on_mrpc() -> None:
    manager = ScheduledModifierManager.from_yaml(str(ROOT / "gradual/snip_momentum/bert_2of4.yaml"))
    manager.resolve_steps(230)
    (pruner,) = manager.pruning_modifiers
    steps = [update.step for update in pruner.schedule.updates(230, 15 * 230)]
    # 3,668 pairs in batches of 16: 229.25 batches in an epoch there, 230 here
    assert steps == [*range(230, 2281, 50), 2300], "at the end nothing is left to prune"
    asked = [pruner.get_applied_sparsity_for_epoch(step / 230, 230)[0] for step in steps]
    assert asked[0] == 0.0 and asked[-3] < asked[-2] == asked[-1] == 0.5
    assert manager.max_epochs == 15


@pytest.mark.parametrize("recipe", sorted((ROOT / "srp").glob("*.yaml")), ids=lambda r: r.stem)
def test_what_shrinks_the_model_is_told_before_training(recipe: Path, tmp_path: Path) -> None:
    config = transformers.BertConfig(**BERT, architectures=["BertForSequenceClassification"])
    found = _checked(recipe, config, tmp_path)
    assert found["epochs"] == 20
    removes = [m["removes"] for m in found["modifiers"] if "removes" in m]
    assert len(removes) == (2 if recipe.stem == "two_stage" else 1)
    before, after = removes[0]["parameters"]["before"], removes[-1]["parameters"]["after"]
    # tables of words and positions take most of so small a model, and shrink with the stream alone
    assert 0.1 * before < after < 0.25 * before
    neurons = removes[-1]["units"]["fc"]
    assert neurons["places"] == 2 and neurons["before"] == 512 > neurons["after"]
    shown = CliRunner().invoke(main, ["recipe", "check", str(recipe), "--model", f"hf:{tmp_path}"])
    assert "parameters of the model" in shown.stdout and f"{after:,}" in shown.stdout
    names = [f"transformers/srp/{name}" for name in ("single_stage", "two_stage")]
    assert [name for name in ready_recipes() if name.startswith("transformers/srp/")] == names


def test_a_model_that_cannot_shrink_is_refused_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "net_too_small.py").write_text(
        "import torch\ndef net():\n    net = torch.nn.Sequential(torch.nn.Linear(4, 4))\n"
        "    net.pretrained_cfg = {'input_size': (2, 4)}\n    return net\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        recipe = str(ROOT / "srp/single_stage.yaml")
        done = CliRunner().invoke(main, ["recipe", "check", recipe, "--model", "net_too_small:net"])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert "SRPPruningModifier finds nothing to remove in stage 0" in done.stderr


def test_what_a_model_that_cannot_be_run_loses_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "own_net.py").write_text("import torch\nnet = lambda: torch.nn.Linear(4, 4)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        recipe = str(ROOT / "srp/single_stage.yaml")
        done = CliRunner().invoke(main, ["recipe", "check", recipe, "--model", "own_net:net"])
    assert done.exit_code == 0, done.output
    assert "#1 removes units; which, this cannot tell: give example_inputs" in done.stdout


def test_they_are_found_by_name() -> None:
    names = {name for name in ready_recipes() if name.startswith("transformers/gradual/")}
    assert names == {f"transformers/{_name(recipe)}" for recipe in RECIPES}
    done = CliRunner().invoke(main, ["recipe", "list", "transformers", "snip", "squad"])
    assert done.exit_code == 0
    assert "transformers/gradual/snip_momentum/bert_squad_2of4" in done.stdout
