"""Transformers that nobody here wrote, small: a builder for each, and what is to be found in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import transformers as t
from torch import nn

_BERT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 64,
}
_LLAMA = {**_BERT, "num_key_value_heads": 2, "pad_token_id": 0}
_BART = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {"layers": 1, "attention_heads": 4, "ffn_dim": 48}.items()
}
_DISTILBERT = {"dim": 24, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "vocab_size": 64}
_GPT2 = {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 64}
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2}
_VIT = {**_BERT, "image_size": 16, "patch_size": 8}


class Known(NamedTuple):
    """A model, its kinds of units and how many of each place there are."""

    build: Callable[[str], nn.Module]
    heads: list[int]
    neurons: list[int]


def _known(
    model: type, config: type, heads: list[int], neurons: list[int], **settings: object
) -> Known:
    def build(attention: str) -> nn.Module:
        return model(config(**settings, attn_implementation=attention)).eval()

    return Known(build, heads, neurons)


ZOO = {
    # the last of the neurons are those between the two layers of the classifier
    "bert": _known(t.BertForSequenceClassification, t.BertConfig, [4, 4], [48, 48, 24], **_BERT),
    "roberta": _known(
        t.RobertaForSequenceClassification, t.RobertaConfig, [4, 4], [48, 48, 24], **_BERT
    ),
    "electra": _known(
        t.ElectraForSequenceClassification, t.ElectraConfig, [4, 4], [48, 48, 24], **_BERT
    ),
    "distilbert": _known(
        t.DistilBertForSequenceClassification,
        t.DistilBertConfig,
        [4, 4],
        [48, 48, 24],
        **_DISTILBERT,
    ),
    "bert-mlm": _known(t.BertForMaskedLM, t.BertConfig, [4, 4], [48, 48], **_BERT),
    "vit": _known(t.ViTForImageClassification, t.ViTConfig, [4, 4], [48, 48], **_VIT),
    # heads of keys, each with two of queries
    "llama": _known(t.LlamaForCausalLM, t.LlamaConfig, [2, 2], [48, 48], **_LLAMA),
    "qwen3": _known(t.Qwen3ForCausalLM, t.Qwen3Config, [2, 2], [48, 48], head_dim=8, **_LLAMA),
    "gpt2": _known(t.GPT2LMHeadModel, t.GPT2Config, [4, 4], [96, 96], **_GPT2, **_TOKENS),
    "bart": _known(
        t.BartForConditionalGeneration,
        t.BartConfig,
        [4] * 3,
        [48, 48],
        d_model=24,
        vocab_size=64,
        **_BART,
    ),
}
