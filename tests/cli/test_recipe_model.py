"""``sparseml recipe check --model``: building models, and what patterns match."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sparseml.cli.model_source import build_model
from sparseml.cli.problems import Problem


def test_matches_of_every_pattern(folder: Path, invoke: Any, invoke_json: Any) -> None:
    text = (folder / "gradual.yaml").read_text()
    text = text.replace("['re:.*weight']", "['re:.*weight', 'second.bias']")
    (folder / "two.yaml").write_text(text)
    found = invoke_json("check", "two.yaml", "--model", "own_code:Network")
    epochs, pruner = sorted(found["modifiers"], key=lambda m: m["modifier"])
    assert epochs["matches"] == []
    assert pruner["matches"] == [
        {
            "pattern": "re:.*weight",
            "tensors": 2,
            "weights": 4 * 8 + 8 * 2,
            "names": ["first.weight", "second.weight"],
        },
        {"pattern": "second.bias", "tensors": 1, "weights": 2, "names": ["second.bias"]},
    ]
    assert "second.bias" in invoke("check", "two.yaml", "--model", "own_code:ready").stdout


def test_what_own_code_prints_does_not_get_into_the_json(invoke: Any) -> None:
    done = invoke("check", "gradual.yaml", "--model", "own_code:Network", "--json")
    json.loads(done.stdout)
    assert "building a network" in done.stderr


def test_sparsities_for_groups_of_parameters(folder: Path, invoke_json: Any) -> None:
    text = (folder / "gradual.yaml").read_text()
    text = text.replace("params: ['re:.*weight']", "params: []")
    text = text.replace("eval(final)", "{0.8: [first.weight], 0.5: ['re:second.*t$']}")
    (folder / "groups.yaml").write_text(text)
    found = invoke_json("check", "groups.yaml", "--model", "own_code:Network")
    pruner = next(m for m in found["modifiers"] if m.get("matches"))
    # as in SparseML 1.x, mappings of a recipe are in the order of their keys
    assert pruner["one_shot_sparsity"] == [0.5, 0.8]
    assert [m["pattern"] for m in pruner["matches"]] == ["re:second.*t$", "first.weight"]


SECOND = """\
  - !MagnitudePruningModifier
    params: [first.weight]
    init_sparsity: 0.5
    final_sparsity: 0.9
    start_epoch: {start}
    end_epoch: 5.0
    update_frequency: 1.0
"""


@pytest.mark.parametrize(("start", "overlapping"), [(2.0, True), (3.0, False)])
def test_two_modifiers_on_one_parameter_at_one_time(
    folder: Path, invoke: Any, invoke_json: Any, start: float, overlapping: bool
) -> None:
    text = (folder / "gradual.yaml").read_text() + SECOND.format(start=start)
    (folder / "both.yaml").write_text(text)
    call = ("check", "both.yaml", "--model", "own_code:Network")
    found = invoke_json(*call)["overlaps"]
    said = "#1 and #3 both prune first.weight from epoch 2 to epoch 3" in invoke(*call).stdout
    assert said == overlapping
    pair = {"modifiers": [1, 3], "names": ["first.weight"], "start_epoch": 2.0, "end_epoch": 3.0}
    assert found == ([pair] if overlapping else [])


def test_a_pair_that_training_refuses_is_refused(folder: Path, invoke: Any) -> None:
    second = SECOND.format(start=2.0).replace("MagnitudePruning", "SnipMomentumPruning")
    (folder / "both.yaml").write_text((folder / "gradual.yaml").read_text() + second)
    found = invoke("check", "both.yaml", "--model", "own_code:Network")
    assert found.exit_code == 2
    said = "SnipMomentumPruningModifier both prune first.weight from epoch 2 to epoch 3"
    assert re.search(rf"^both.yaml:\d+: .* {re.escape(said)}", found.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "re:.*weight",
            "re:third.*",
            "gradual.yaml:11: MagnitudePruningModifier: pattern 're:third",
        ),
        ("re:.*weight", "first.wait", "did you mean 'first.weight'"),
        (
            "  params",
            "  mask_type: [3, 1]\n    params",
            "gradual.yaml:11: MagnitudePruningModifier: ",
        ),
        ("  params", "  mask_type: 2:4\n    params", "final_sparsity"),
    ],
)
def test_what_does_not_fit_the_model(
    folder: Path, invoke: Any, old: str, new: str, expected: str
) -> None:
    recipe = folder / "gradual.yaml"
    recipe.write_text(recipe.read_text().replace(old, new, 1))
    assert invoke("check", "gradual.yaml").exit_code == 0
    failed = invoke("check", "gradual.yaml", "--model", "own_code:Network")
    assert failed.exit_code == 2
    assert expected in failed.stderr
    assert failed.stdout == ""


@pytest.mark.parametrize("model", [(), ("--model", "own_code:Network")])
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  params", "  mask_type: blok4\n    params", "mask_type must be one of"),
        ("  params", "  mask_type:\n    params", "mask_type must be one of"),
        ("  params", "  mask_type: [1, 2, 3]\n    params", "mask_type must be one of"),
        ("  params", "  mask_type: 4:2\n    params", ""),
        ("re:.*weight", "re:first[", "bad regular expression 'first['"),
        ("re:.*weight", "re:*", "bad regular expression '*'"),
    ],
)
def test_patterns_that_fit_no_model(
    folder: Path, invoke: Any, old: str, new: str, expected: str, model: tuple[str, ...]
) -> None:
    recipe = folder / "gradual.yaml"
    recipe.write_text(recipe.read_text().replace(old, new, 1))
    failed = invoke("check", "gradual.yaml", *model)
    assert failed.exit_code == 2
    assert failed.stderr.startswith(f"gradual.yaml:11: MagnitudePruningModifier: {expected}")
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("item", "line"),
    [
        ("!MagnitudePruningModifier {params: [second.weight], mask_type: [3, 1], %s}", 18),
        ("!MagnitudePruningModifier {params: ['re:third'], mask_type: block4, %s}", 18),
        # the same twice: there is no telling which is meant
        (
            "!ConstantPruningModifier {params: [x]}\n  - !ConstantPruningModifier {params: [x]}",
            None,
        ),
    ],
)
def test_the_right_one_of_several_modifiers_is_pointed_at(
    folder: Path, invoke: Any, item: str, line: int | None
) -> None:
    fields = "init_sparsity: 0.1, final_sparsity: 0.5, start_epoch: 1, end_epoch: 2, "
    text = (folder / "gradual.yaml").read_text()
    text += f"  - {item.replace('%s', fields + 'update_frequency: 1')}\n"
    (folder / "several.yaml").write_text(text)
    failed = invoke("check", "several.yaml", "--model", "own_code:Network")
    place = "several.yaml" if line is None else f"several.yaml:{line}"
    assert failed.stderr.splitlines()[-1].startswith(f"{place}: ")


def test_patterns_need_not_match_where_the_recipe_says_so(folder: Path, invoke_json: Any) -> None:
    (folder / "loose.yaml").write_text(
        "modifiers:\n  - !TrainableParamsModifier\n    params: ['re:third.*', first.weight]\n"
        "    trainable: False\n    params_strict: False\n"
    )
    found = invoke_json("check", "loose.yaml", "--model", "own_code:Network")
    assert [m["tensors"] for m in found["modifiers"][0]["matches"]] == [0, 1]


def test_timm_models_take_no_memory_for_weights() -> None:
    pytest.importorskip("timm")
    model = build_model("timm:vit_tiny_patch16_224")
    assert all(param.is_meta for param in model.parameters())
    assert model.get_parameter("blocks.0.attn.qkv.weight").shape == (576, 192)


def test_timm_model_that_nearly_exists() -> None:
    pytest.importorskip("timm")
    with pytest.raises(Problem, match="did you mean 'deit_tiny_patch16_224'"):
        build_model("timm:deit_tiny_patch16_22")


def test_hugging_face_model_from_its_configuration(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(tmp_path)
    model = build_model(f"hf:{tmp_path}")
    assert type(model).__name__ == "BertForSequenceClassification"
    assert all(param.is_meta for param in model.parameters())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("network", "must be timm:NAME, hf:DIR, fairseq:FILE.pt or module.path:callable"),
        ("timm:", "must be timm:NAME"),
        (":Network", "must be timm:NAME"),
        ("hf:.", "no file config.json"),
        ("fairseq:none.pt", "fairseq:none.pt: no such file"),
        ("no_such_module:Network", "no module named 'no_such_module'"),
        ("own_code:Netwrok", "has no 'Netwrok'; did you mean 'Network'?"),
        ("own_code:number", "is of type int"),
        ("own_code:failing", "own_code.py:15: ZeroDivisionError: division by zero"),
        ("own_code:not_a_network", "must give a torch.nn.Module, it gave a str"),
        ("broken_code:Network", "importing broken_code failed: "),
    ],
)
def test_models_that_cannot_be_had(folder: Path, invoke: Any, source: str, expected: str) -> None:
    (folder / "broken_code.py").write_text("raise RuntimeError('broken\\nin two lines')\n")
    failed = invoke("check", "gradual.yaml", "--model", source)
    assert failed.exit_code == 2
    assert expected in failed.stderr
    assert failed.stderr.rstrip("\n").splitlines()[-1].startswith("--model ")
    assert "Traceback" not in failed.output


def test_own_code_is_found_below_names(folder: Path) -> None:
    (folder / "own_code.py").write_text(
        "import torch\nclass Zoo:\n    tiny = staticmethod(lambda: torch.nn.Linear(2, 3))\n"
    )
    assert isinstance(build_model("own_code:Zoo.tiny"), torch.nn.Linear)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--goal speed=2", "a goal of the recipe is 'speedup', 'params' or 'flops', found 'speed'"),
        ("--goal speedup=0", "speedup of the recipe must be greater than 1, found 0.0"),
        ("--goal params=1.5", "the share to keep, strictly between 0 and 1, found 1.5"),
        ("--goal flops=nan", "the share to keep, strictly between 0 and 1, found nan"),
        ("--goal speedup=inf", "speedup of the recipe must be finite, found inf"),
        ("--goal params=half", "speedup=2, params=0.5 or the like, found 'params=half'"),
        ("--goal speedup", "found 'speedup' without ="),
        ("--goal speedup=2 --goal params=0.5", "given once, found speedup=2 and params=0.5"),
        ("--goal params=0.5 --sparsity 0.5", "--goal is in place of --sparsity"),
        ("--goal params=0.5 --method cap", "a goal needs method: structured, found cap"),
    ],
)
def test_wrong_goals(words: str, told: str, invoke: Any) -> None:
    """Each costs a line, before a model is built."""
    method = "" if "--method" in words else "--method structured"
    done = invoke("new", "--model", "own_code:failing", *method.split(), *words.split())
    assert done.exit_code == 2 and told in done.stderr and done.stderr.count("\n") == 1
    assert "Traceback" not in done.output and "building" not in done.output
