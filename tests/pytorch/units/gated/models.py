"""Transformers of every make, small, each with inputs; and what can go in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
import transformers as t
from torch import Tensor, nn

IDS = torch.tensor([[3, 7, 1, 9, 4], [2, 2, 8, 5, 6]])
BOTH = {"input_ids": IDS, "decoder_input_ids": IDS[:, :4]}
_T5 = {
    "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 64,
    "decoder_start_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
LAYERS_OF_BOTH = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {"layers": 1, "attention_heads": 4, "ffn_dim": 24}.items()
}
MARIAN = {
    **LAYERS_OF_BOTH,
    "d_model": 16, "vocab_size": 64, "pad_token_id": 0, "decoder_start_token_id": 0,
    "eos_token_id": 1, "bos_token_id": 2, "forced_eos_token_id": 1,
}  # fmt: skip
BERT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "vocab_size": 64,
}  # fmt: skip
LLAMA = {**BERT, "num_key_value_heads": 2, "pad_token_id": 0}


class Encoder(nn.Module):
    """Embeddings, layers of torch and a head."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(32, 16), nn.Parameter(torch.randn(12, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **settings)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        x = self.words(ids) + self.positions[: ids.shape[1]]
        return self.head(self.layers(x, src_key_padding_mask=padding))


class Translator(nn.Module):
    """Torch's own Transformer, with a table of words that is tied to the head."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(32, 16), nn.Embedding(30, 16)
        self.layers = nn.Transformer(16, 4, 2, 2, 24, batch_first=True)
        self.head = nn.Linear(16, 30, bias=False)
        self.head.weight = self.target.weight

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.layers(self.source(source), self.target(target)))


class Made(NamedTuple):
    """How to build a model, what it takes, and of which kinds there are how many places.

    :param shared: places of queries and keys, where attention shares rotary positions
    """

    build: Callable[[], nn.Module]
    inputs: Any
    streams: int
    attentions: int
    ffns: int
    shared: int = 0


def from_config(model: type, config: type, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: model(config(**settings))


ZOO = {
    "torch, post-norm": Made(Encoder, IDS, 1, 2, 2),
    "torch, pre-norm": Made(lambda: Encoder(norm_first=True), IDS, 1, 2, 2),
    "torch, both sides": Made(Translator, (IDS, IDS), 1, 6, 4),
    "bert": Made(from_config(t.BertForSequenceClassification, t.BertConfig, **BERT), IDS, 1, 2, 2),
    "bert-mlm": Made(from_config(t.BertForMaskedLM, t.BertConfig, **BERT), IDS, 1, 2, 2),
    "gpt2": Made(
        from_config(t.GPT2LMHeadModel, t.GPT2Config, n_embd=16, n_layer=2, n_head=4, vocab_size=64,
              bos_token_id=1, eos_token_id=2), IDS, 1, 2, 2),
    "llama, grouped queries": Made(
        from_config(t.LlamaForCausalLM, t.LlamaConfig, **LLAMA),
        IDS, 1, 2, 2, 1),
    "t5": Made(from_config(t.T5ForConditionalGeneration, t.T5Config, **_T5), BOTH, 1, 6, 4),
    "t5, gated": Made(
        from_config(t.T5ForConditionalGeneration, t.T5Config, feed_forward_proj="gated-gelu",
              tie_word_embeddings=False, **_T5), BOTH, 1, 6, 4),
    "bart": Made(
        from_config(t.BartForConditionalGeneration, t.BartConfig, **MARIAN), BOTH, 1, 3, 2),
    "marian": Made(from_config(t.MarianMTModel, t.MarianConfig, **MARIAN), BOTH, 1, 3, 2),
    "mbart": Made(
        from_config(t.MBartForConditionalGeneration, t.MBartConfig, **MARIAN), BOTH, 1, 3, 2),
    "vit": Made(
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=5,
                                  embed_dim=24, init_values=0.1),
        torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), 1, 2, 2),
}  # fmt: skip


def made(name: str) -> tuple[nn.Module, Any]:
    """Return a model in double precision whose vectors are no ones and zeros, and its inputs."""
    torch.manual_seed(0)
    model, inputs = ZOO[name].build().double().eval(), ZOO[name].inputs
    with torch.no_grad():
        for param in model.parameters():
            param.add_(torch.randn_like(param) * 0.05)
    wide = isinstance(inputs, Tensor) and inputs.is_floating_point()
    return model, inputs.double() if wide else inputs
