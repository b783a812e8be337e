"""Pruning whole attention heads by running saliency."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import GMPruningModifier, SnipMomentumPruningModifier
from sparseml.pytorch.units import hidden_units, remove_hidden

HEADS, SIZE = 4, 8


def bert(layers=2):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": HEADS * SIZE, "intermediate_size": 48, "num_attention_heads": HEADS}
    config = BertConfig(
        vocab_size=50, num_hidden_layers=layers, max_position_embeddings=16, **sizes
    )
    torch.manual_seed(0)
    return BertForSequenceClassification(config).double().eval()


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": HEADS * SIZE, "n_layer": 2, "n_head": HEADS, "n_positions": 16}
    more = {"bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, **sizes, **more)).double().eval()


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": HEADS * SIZE, "intermediate_size": 48, "num_attention_heads": HEADS}
    more = {"num_key_value_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 16}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes, **more)).double().eval()


def modifier(**changes):
    first = {"params": "__ALL_PRUNABLE__", "init_sparsity": 0.0, "final_sparsity": 0.5}
    first |= {"start_step": 2, "end_step": 6, "update_steps": 2, "mask_type": "heads"}
    return SnipMomentumPruningModifier(**{**first, **changes})


def parts(layer):
    attention = layer.attention
    rows = [attention.self.query, attention.self.key, attention.self.value]
    return [one.weight.view(HEADS, SIZE, -1) for one in rows] + [
        attention.output.dense.weight.T.reshape(HEADS, SIZE, -1)
    ]


@pytest.mark.parametrize("reduce", ["mean", "max", "sum"])
@pytest.mark.parametrize("together", [True, False])
def test_scores_are_the_mean_over_query_key_value_and_output(reduce, together):
    model = bert(3)
    pruner = modifier(score_reduce=reduce, global_sparsity=together)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    stepper = ScheduledModifierManager([pruner]).modify(model, optimizer, steps_per_epoch=10)
    layers, running = model.bert.encoder.layer, torch.zeros(3, HEADS).double()
    generator = torch.Generator().manual_seed(5)
    for step in range(8):
        stepper.zero_grad()
        tokens = torch.randint(50, (4, 8), generator=generator)
        labels = torch.randint(2, (4,), generator=generator)
        model(input_ids=tokens, labels=labels).loss.backward()
        if step <= 6:
            found = []
            for layer in layers:
                grads = copy.deepcopy(layer)
                for own, other in zip(grads.parameters(), layer.parameters(), strict=True):
                    own.data = other.grad
                pairs = zip(parts(layer), parts(grads), strict=True)
                products = [(w * g).detach().abs().flatten(1) for w, g in pairs]
                each = {"mean": "mean", "sum": "sum", "max": "amax"}[reduce]
                found.append(torch.stack([getattr(p, each)(1) for p in products]).mean(0))
            running = 0.9 * running + torch.stack(found)
        stepper.step()
    gone = torch.stack([(parts(layer)[0] == 0).flatten(1).all(1) for layer in layers])
    for place, layer in enumerate(layers):
        for part in parts(layer):
            assert torch.equal((part == 0).flatten(1).all(1), gone[place])
            assert torch.equal((part == 0).flatten(1).any(1), gone[place])
    assert int(gone.sum()) == 6
    if together:
        assert running[gone].max() <= running[~gone].min()
    else:
        assert gone.sum(1).tolist() == [2, 2, 2]
    assert len(pruner.masks) == 12  # attention only, whatever params selects besides


def test_counts_are_rounded_down_and_no_layer_loses_all_heads():
    model = bert()
    pruner = modifier(final_sparsity=0.7)
    pruner.initialize(model)
    for name, param in model.named_parameters():
        factor = 1e-3 if "layer.0" in name else 1.0
        param.grad = torch.randn_like(param) * factor
    pruner.method.observe(pruner.masks)
    outcome = pruner.outcome(model)
    gone = [
        int((~outcome[f"bert.encoder.layer.{n}.attention.self.query.weight"].mask).sum())
        for n in range(2)
    ]
    # 5 of 8 heads, of which the cap of 0.98 leaves one in the first layer
    assert gone == [3 * SIZE * HEADS * SIZE, 2 * SIZE * HEADS * SIZE]


@pytest.mark.parametrize("build", [bert, gpt2, llama])
def test_what_is_pruned_can_be_removed(build):
    model = build()
    before = sum(param.numel() for param in model.parameters())
    pruner = modifier(score_type="magnitude", global_sparsity=False)
    pruner.apply(model)
    tokens = torch.randint(1, 50, (2, 8), generator=torch.Generator().manual_seed(0))
    expected = model(input_ids=tokens).logits
    found = [units for units in hidden_units(model).found if units.kind == "heads"]
    assert len(found) == 2
    keeps = {}
    for units in found:
        member = units.group.members[-1]
        weight = model.get_parameter(member.param)
        slices = (weight != 0).any(1 - member.dim)
        keep = torch.zeros(units.group.size, dtype=torch.bool)
        keep[member.index[slices]] = True
        assert int(keep.sum()) == units.group.size // 2
        keeps[units] = keep
    remove_hidden(model, keeps)
    torch.testing.assert_close(model(input_ids=tokens).logits, expected)
    assert sum(param.numel() for param in model.parameters()) < before


def test_in_parts_and_resumed_from_the_middle():
    def run(stop):
        model = bert()
        pruner = modifier(progressive_steps=2, update_steps=4, end_step=10)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        manager = ScheduledModifierManager([pruner])
        stepper = manager.modify(model, optimizer, steps_per_epoch=10)
        for step in range(13):
            if step == stop:
                states = copy.deepcopy([x.state_dict() for x in (model, optimizer, manager)])
                fresh = run_of_parts()
                for part, state in zip(fresh[:3], states, strict=True):
                    part.load_state_dict(state)
                model, optimizer, manager, stepper = fresh
            stepper.zero_grad()
            tokens = torch.randint(50, (4, 8), generator=torch.Generator().manual_seed(step))
            model(input_ids=tokens, labels=torch.ones(4).long()).loss.backward()
            stepper.step()
        return model.state_dict()

    def run_of_parts():
        model = bert()
        pruner = modifier(progressive_steps=2, update_steps=4, end_step=10)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        manager = ScheduledModifierManager([pruner])
        stepper = manager.modify(model, optimizer, steps_per_epoch=10)
        return model, optimizer, manager, stepper

    whole, resumed = run(None), run(7)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_only_the_attention_that_params_select():
    model = bert()
    one = modifier(params=["re:.*layer.1.attention.*weight"], exclude=["re:.*LayerNorm.*"])
    names = [found.name for found in one.selects(model)]
    assert len(names) == 4 and all("layer.1.attention" in name for name in names)
    with pytest.raises(ValueError, match=r"needs all weights of an attention.*leave out.*dense"):
        modifier(params=["re:.*(query|key|value).weight"]).selects(model)
    with pytest.raises(ValueError, match=r"mask_type, .* leave nothing of what params"):
        modifier(params=["re:.*intermediate.dense.weight"]).selects(model)


def test_models_on_the_meta_device_and_models_without_heads():
    from transformers import BertConfig, BertForSequenceClassification

    with torch.device("meta"):
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": HEADS}
        model = BertForSequenceClassification(BertConfig(num_hidden_layers=2, **sizes))
    assert len(modifier().selects(model)) == 8
    assert all(param.is_meta for param in model.parameters())
    with pytest.raises(ValueError, match=r"mask_type 'heads': give example_inputs.*list of UnitGr"):
        modifier().selects(nn.Sequential(nn.Linear(8, 8)))


def test_where_heads_are_refused():
    with pytest.raises(ValueError, match="'heads' is for a SnipMomentumPruningModifier"):
        fields = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 1.0}
        GMPruningModifier(
            params="__ALL_PRUNABLE__",
            init_sparsity=0.0,
            final_sparsity=0.5,
            mask_type="heads",
            **fields,
        ).initialize(bert())
    for changes in ({"score_type": "block_mask"}, {"reg_type": "group_lasso", "reg_coeff": 0.1}):
        with pytest.raises(ValueError, match=r"needs blocks that go as a whole.*'heads'"):
            modifier(**changes).selects(bert())
