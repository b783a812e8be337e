"""Recipes made of the settings of Intel Neural Compressor's pruner."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import PatternLockModifier, SnipMomentumPruningModifier

MIXED = """
target_sparsity: 0.9
start_step: 229
end_step: 2292
pruning_frequency: 51
sparsity_decay_type: cube
excluded_op_names: [pooler]
pruning_scope: global
pruning_configs:
  - op_names: ['.*output', '.*intermediate']
    pattern: 1x1
    pruning_scope: local
    excluded_op_names: null
    end_step: 1000
  - op_names: ['.*query', '.*key', '.*value$']
    pattern: tile_pattern_4x1
    pruning_op_types: [Linear]
    min_sparsity_ratio_per_op: 0.5
    criterion_reduce_type: max
    low_memory_usage: true
    lock_init_sparsity: true
"""


@pytest.fixture
def converted(folder, invoke):
    """Convert a text; the modifiers of the recipe."""

    def convert(text):
        (folder / "inc.yaml").write_text(text)
        result = invoke("convert", "--from", "inc", "inc.yaml")
        assert result.exit_code == 0, result.output
        return ScheduledModifierManager.from_yaml(result.stdout).modifiers

    return convert


@pytest.fixture
def refused(folder, invoke):
    """Convert a text that cannot be; the message."""

    def convert(text):
        (folder / "inc.yaml").write_text(text)
        result = invoke("convert", "--from", "inc", "inc.yaml")
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        return result.stderr.strip()

    return convert


def test_keys_of_a_pruner_win_over_those_of_all(converted):
    first, second = converted(MIXED)
    assert isinstance(first, SnipMomentumPruningModifier)
    kept = first.props(only_serializable=True)
    assert kept["params"] == [
        r"re:.*(?:.*output).*\.weight$",
        r"re:.*(?:.*intermediate).*\.weight$",
    ]
    assert kept["exclude"] == second.exclude == [r"re:.*(?:pooler).*\.weight$"]
    assert (first.start_step, first.end_step, first.update_steps) == (229, 1000, 51)
    assert (second.start_step, second.end_step, second.update_steps) == (229, 2292, 51)
    assert (first.mask_type, second.mask_type) == ("1x1", "4x1")
    assert (first.global_sparsity, second.global_sparsity) == (False, True)
    assert (first.max_sparsity_per_param, second.max_sparsity_per_param) == (None, 0.98)
    assert (first.min_sparsity_per_param, second.min_sparsity_per_param) == (None, 0.5)
    assert (first.layer_types, second.layer_types) == (["Conv", "Linear"], ["Linear"])
    assert (first.score_reduce, second.score_reduce) == ("mean", "max")
    assert (first.score_dtype, second.score_dtype) == ("float32", "bfloat16")
    assert (first.init_sparsity, second.init_sparsity) == (0.0, "__FROM_PARAM__")
    assert first.inter_func == second.inter_func == "cube"
    assert first.final_sparsity == second.final_sparsity == 0.9


@pytest.mark.parametrize(
    ("theirs", "ours", "sparsity"),
    [("2:4", "2:4", 0.5), ("1:4", "3:4", 0.25), ("3:4", "1:4", 0.75), ("2:8", "6:8", 0.25)],
)
def test_of_n_in_m_the_others_are_kept(theirs, ours, sparsity, converted):
    # without quotes it is a number to base 60 in YAML 1.1
    modifier = converted(f"pattern: {theirs}\ntarget_sparsity: {sparsity}\nend_step: 9")[0]
    assert modifier.mask_type == ours
    layer = nn.Linear(16, 8)
    modifier.apply(nn.Sequential(layer, nn.ReLU()))
    gone = (layer.weight == 0).view(8, -1, int(theirs[2:])).sum(2)
    assert (gone == int(theirs[0])).all()


@pytest.mark.parametrize("as_json", [False, True])
def test_defaults_and_the_form_of_1x(as_json, converted):
    pruners = [{"pattern": "1xchannel"}, {"pruning_type": "pattern_lock"}]
    nested = {"end_step": 50, "target_sparsity": 0.6, "pruners": pruners}
    content = {"pruning": {"approach": {"weight_compression_v2": nested}}}
    first, second = converted(json.dumps(content) if as_json else str(content))
    assert (first.mask_type, first.final_sparsity, first.params) == (
        "1xchannel", 0.6, "__ALL_PRUNABLE__",
    )  # fmt: skip
    assert (first.start_step, first.update_steps, first.inter_func) == (0, 1, "exp")
    assert first.score_type == "snip_momentum" and first.layer_types is None
    assert isinstance(second, PatternLockModifier)
    assert len(converted("{end_step: 5, pruning_configs: []}")) == 1
    assert converted("{end_step: 5, max_sparsity_ratio_per_op: 0.8}")[0].final_sparsity == 0.8


def test_a_locked_pattern_keeps_all_of_a_2_4_model(converted):
    layer = nn.Linear(8, 4)
    with torch.no_grad():
        layer.weight.view(4, 2, 4)[..., :2] = 0.0
    before = layer.weight.clone()
    lock = "pruning_type: pattern_lock, pattern: '1:4', excluded_op_names: [head]"
    found = converted(f"{{{lock}, start_step: 3, end_step: 3}}")[0]
    assert (found.mask_type, found.start_step) == ("3:4", 3)
    assert found.exclude == [r"re:.*(?:head).*\.weight$"]
    converted("{pruning_type: pattern_lock, pattern: '2:4', target_sparsity: 0.5}")[0].apply(layer)
    assert torch.equal(layer.weight, before)


def test_what_else_a_pruner_can_do(converted):
    common = "target_sparsity: 0.6, start_step: 10, end_step: 50, pruning_frequency: 8"
    parts = converted(f"{{{common}, pruning_type: snip_progressive}}")[0]
    assert (parts.score_type, parts.progressive_steps) == ("snip", 4)
    lasso = "reg_type: group_lasso, parameters: {reg_coeff: 0.002}, reg_coeff: 0.1"
    regularised = converted(f"{{{common}, pattern: 2x1, {lasso}}}")[0]
    assert (regularised.reg_type, regularised.reg_coeff) == ("group_lasso_by_gradient", 0.002)
    direct = converted(f"{{{common}, reg_type: group_lasso, reg_coeff: 0.1}}")[0]
    assert direct.reg_coeff == 0.1
    masked = converted(f"{{{common}, pruning_type: block_mask, pattern: 4x1}}")[0]
    assert (masked.score_type, masked.start_step) == ("block_mask", 10)
    free = converted(f"{{{common}, pruning_type: retrain_free, pattern: channelx1}}")[0]
    assert (free.score_type, free.num_grads) == ("retrain_free", 40)
    assert (free.start_step, free.end_step) == (50, 50)
    heads = converted(f"{{{common}, pattern: mha, op_names: [attention]}}")[0]
    assert (heads.mask_type, heads.max_sparsity_per_param) == ("heads", 0.98)
    assert parts.spare_head and free.spare_head
    assert parts.reg_type is None and regularised.progressive_steps == 1


def test_one_conversion_leaves_nothing_for_the_next(converted):
    names = "op_names: [query], excluded_op_names: [pooler], target_sparsity: 0.6"
    converted(f"{{end_step: 7, {names}, pruning_configs: [{{}}]}}")
    after = converted("{end_step: 9}")[0]
    assert (after.params, after.exclude, after.final_sparsity) == ("__ALL_PRUNABLE__", None, 0.9)


def test_the_head_stays_dense(converted):
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    found = converted("{end_step: 9, target_sparsity: 0.5}")[0].selects(net)
    assert [one.name for one in found] == ["0.weight"]


def test_names_are_searched_for_in_those_of_layers(converted):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(vocab_size=9, num_hidden_layers=2, **sizes))
    names = r"op_names: ['\.attention', 'intermediate.dense$'], excluded_op_names: ['0\.']"
    selected = {one.name for one in converted(f"{{end_step: 9, {names}}}")[0].selects(model)}
    layer = "bert.encoder.layer.1."
    attention = ("self.query", "self.key", "self.value", "output.dense")
    expected = {f"{layer}attention.{part}.weight" for part in attention}
    assert selected == expected | {f"{layer}intermediate.dense.weight"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{target_sparsty: 0.5}", "inc.yaml: target_sparsty is not a key.*'target_sparsity'"),
        (
            "{pruning_configs: [{}, {patern: 4x1}]}",
            r"inc.yaml: pruning_configs\[1\].patern is not a key.*'pattern'",
        ),
        (
            "{end_step: 9, pruning_configs: [{target_sparsity: 1.5}]}",
            r"pruning_configs\[0\].target_sparsity must be a number in \[0, 1\), found 1.5",
        ),
        ("{end_step: 9, target_sparsity: true}", "target_sparsity must be a number"),
        ("{end_step: 2.5}", "inc.yaml: end_step must be a whole number of at least 0, found 2.5"),
        ("{start_step: 8, end_step: 5}", "end_step must be at least start_step 8, found 5"),
        ("{target_sparsity: 0.5}", "end_step must be above 0, as snip_momentum needs a step"),
        ("{end_step: 9, pattern: 4by1}", "pattern must be NxM, 1xchannel, .*found '4by1'"),
        ("{end_step: 9, pattern: 4x0}", "pattern must be NxM"),
        ("{pattern: mha, pruning_type: pattern_lock}", "pattern cannot be mha with pattern_lock"),
        ("{end_step: 9, pattern: '4:4'}", "pattern must prune fewer than all of M"),
        (
            "{end_step: 9, pattern: '1:4', target_sparsity: 0.5}",
            "target_sparsity must be at most 0.25, found 0.5",
        ),
        ("{end_step: 9, pruning_type: sparse_gpt}", "'sparse_gpt' has no modifier.*FastCAPruning"),
        (
            "{end_step: 9, pruning_type: block_mask, pattern: '1:4', target_sparsity: 0.2}",
            "pattern must be NxM with block_mask, found '3:4'",
        ),
        (
            "{end_step: 9, pruning_type: retrain_free}",
            "inc.yaml: pattern must be 1xchannel or channelx1 with retrain_free, found '4x1'",
        ),
        ("{end_step: 9, pruning_type: snipmomentum}", "did you mean 'snip_momentum'"),
        ("{end_step: 9, reg_type: lasso}", "reg_type must be 'group_lasso', found 'lasso'"),
        ("{end_step: 9, reg_type: group_lasso}", "reg_type 'group_lasso' needs a reg_coeff"),
        (
            "{end_step: 9, reg_type: group_lasso, parameters: {reg_coeff: -1}}",
            "inc.yaml: parameters must have as reg_coeff a number of at least 0, found -1",
        ),
        ("{end_step: 9, parameters: 1}", "parameters must be a mapping, found 1"),
        (
            "{end_step: 9, reg_type: group_lasso, reg_coeff: 0.1, pattern: '2:4', "
            "target_sparsity: 0.5}",
            "reg_type 'group_lasso' needs pattern NxM, found '2:4'",
        ),
        ("{end_step: 9, op_names: query}", "op_names must be a list of names, found 'query'"),
        ("{end_step: 9, op_names: ['(']}", r"op_names \['\('\] has no regular"),
        ("{end_step: 9, min_sparsity_ratio_per_op: 0.95}", "min_sparsity_ratio_per_op must be at"),
        ("{end_step: 9, pruning_configs: {}x", "inc.yaml: is neither YAML nor JSON"),
        ("{end_step: 9, pruning_configs: {a: 1}}", "pruning_configs must be a list of mappings"),
        ("[1, 2]", "inc.yaml: must be a mapping of keys, found list"),
    ],
)
def test_one_line_says_file_and_key(text, message, refused):
    assert re.search(message, refused(text))


def test_files(folder, invoke):
    assert "none.yaml: cannot be read" in invoke("convert", "--from", "inc", "none.yaml").stderr
    (folder / "inc.json").write_text('{"end_step": 10, "pattern": "2:4", "target_sparsity": 0.5}')
    result = invoke("convert", "--from", "inc", "inc.json", "-o", "out/recipe.yaml")
    assert (result.exit_code, result.stdout) == (0, "")
    text = (folder / "out" / "recipe.yaml").read_text()
    assert text.startswith("# Converted from inc.json.\n") and "mask_type: '2:4'" in text
    assert invoke("check", "out/recipe.yaml", "--steps-per-epoch", "5").exit_code == 0
    wrong = invoke("convert", "--from", "inc", "inc.json", "-o", "recipe.txt")
    assert wrong.exit_code == 2 and ".yaml or .yml" in wrong.stderr
