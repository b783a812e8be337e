"""Models that others wrote: planned, tuned, put together, compared."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparseml.compose.asking import Asking, Configuration
from sparseml.compose.finishing import compose_model
from sparseml.compose.origin import Lent
from sparseml.compose.planning import make_plan
from sparseml.compose.tuning import prune_blocks
from sparseml.pytorch.sparsification.composing.store import BlockStore
from sparseml.pytorch.sparsification.composing.student import TuningSettings

from .conftest import Workshop

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}


class Data:
    """Batches that a function draws, and how far a model is from the origin on others."""

    def __init__(self, draw, origin, key=None):
        self.draw, self.origin, self.key = draw, copy.deepcopy(origin).eval(), key
        self.fingerprint = "drawn"

    def _drawn(self, count, seed):
        lot = torch.Generator().manual_seed(seed)
        return [self.draw(lot) for _ in range(count)]

    def training(self, epoch):
        return self._drawn(6, epoch)

    def held_out(self):
        return self._drawn(2, 999)

    def evaluate(self, model):
        return {"distance": sum(self._apart(model, one) for one in self._drawn(2, 555))}

    def _apart(self, model, batch):
        call = (lambda m: m(**batch)) if isinstance(batch, dict) else (lambda m: m(*batch))
        pairs = [call(one) for one in (model, self.origin)]
        values = [one[self.key] if self.key else one for one in pairs]
        return float((values[0] - values[1]).square().mean())


def ids(lot, size, words=50):
    return torch.randint(1, words, size, generator=lot)


def padded(lot, rows, columns):
    mask = torch.ones(rows, columns, dtype=torch.long)
    mask[0, columns - 2 :] = 0
    return mask


def transformer():
    torch.manual_seed(0)
    model = nn.Transformer(32, 4, 2, 2, 48, 0.1)  # positions first, no batch_first

    def draw(lot):
        return torch.randn(7, 3, 32, generator=lot), torch.randn(5, 3, 32, generator=lot)

    return model, draw, None


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, intermediate_size=48, max_position_embeddings=16, **SIZES)

    def draw(lot):
        return {"input_ids": ids(lot, (3, 9)), "attention_mask": padded(lot, 3, 9)}

    return BertForSequenceClassification(config), draw, "logits"


def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                      decoder_start_token_id=0)  # fmt: skip

    def draw(lot):
        return {
            "input_ids": ids(lot, (3, 9)),
            "attention_mask": padded(lot, 3, 9),
            "labels": ids(lot, (3, 6)).masked_fill(padded(lot, 3, 6) == 0, -100),
        }

    return T5ForConditionalGeneration(config), draw, "logits"


def vit():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(image_size=16, patch_size=8, intermediate_size=48, num_labels=3, **SIZES)

    def draw(lot):
        return {"pixel_values": torch.randn(3, 3, 16, 16, generator=lot)}

    return ViTForImageClassification(config), draw, "logits"


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("make", [transformer, bert, t5, vit], ids=lambda one: one.__name__)
def test_plan_tune_assemble_compare(make, tmp_path):
    if make is not transformer:
        pytest.importorskip("transformers")
    model, draw, key = make()
    model.eval()
    data = Lent(Data(draw, model, key))
    asking = Asking(model, next(iter(data.held_out())))
    linear = [
        name
        for name, one in model.named_modules()
        if isinstance(one, nn.Linear) and one.in_features != one.out_features
        and not name.endswith(("out_proj", "lm_head"))
    ]  # fmt: skip
    heads = [_owner(group) for group in asking._all_heads()] if make is not transformer else [
        name for name, one in model.named_modules() if isinstance(one, nn.MultiheadAttention)
    ]  # fmt: skip
    assert len(heads) == {transformer: 6, t5: 6}.get(make, 2) and len(linear) >= 4
    wanted = [
        Configuration("half", rates=dict.fromkeys([*heads, *linear], 0.5)),
        Configuration("mixed", rates={**dict.fromkeys(heads, 0.25), **dict.fromkeys(linear, 0.5)}),
    ]
    plan, pruned = make_plan(model, wanted, asking, base={"model": "m"})
    assert plan.reuse["distinct"] == 2 * len(heads) + len(linear)
    made = Workshop.__new__(Workshop)
    made.model, made.plan, made.pruned, made.data = model, plan, pruned, data
    made.store, made.settings = BlockStore(tmp_path), TuningSettings(epochs=4, lr=1e-3)
    made.store.adopt(plan)
    for one in pruned:
        made.store.prune(one.block, one.tensors(model), one.masks())
    assert prune_blocks(plan, model, made.store, data) == 0
    made.tune()
    for done in made.store.ledger.events("finished"):
        assert done["after"] < done["before"]
    for name in plan.names:
        apart = {
            source: data.evaluate(compose_model(made.store, plan, name, model, source))["distance"]
            for source in ("pruned", "tuned")
        }
        assert 0 < apart["tuned"] < apart["pruned"], (name, apart)


def _owner(group):
    owners = [name.rpartition(".")[0].split(".") for name in group.masked]
    shared = [level[0] for level in zip(*owners, strict=False) if len(set(level)) == 1]
    return ".".join(shared)


def test_the_output_layer_that_t5_ties_is_no_block():
    pytest.importorskip("transformers")
    model = t5()[0]
    with pytest.raises(Exception, match="lm_head cannot be a block: it shares its weight with"):
        make_plan(model, [Configuration("a", rates={"lm_head": 0.5})], Asking(model))


HEADS = """
modifiers:
  - !SnipMomentumPruningModifier
      params: ['re:.*attention.*weight']
      exclude: ['re:.*LayerNorm.*']
      mask_type: heads
      score_type: magnitude
      init_sparsity: 0.0
      final_sparsity: 0.5
      global_sparsity: False
      start_epoch: 0.0
      end_epoch: 1.0
      update_frequency: 1.0
"""


def test_recipes_prune_heads_and_the_rates_of_old_files_share_them():
    pytest.importorskip("transformers")
    model = bert()[0]
    asking = Asking(model)
    plan = make_plan(model, [Configuration("a", HEADS)], asking)[0]
    assert [block.modules for block in plan.blocks] == [
        (_owner(group),) for group in asking._all_heads()
    ]
    kept = [one for block in plan.blocks for one in block.spec["target"].values()]
    assert kept == [{"heads": 2, "of": 4}] * 2
