"""Transformers of fairseq that can lose units, and those of checkpoints that have lost some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from fairseq.modules import MultiheadAttention, SinusoidalPositionalEmbedding
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sparseml.fairseq.checkpoints import UNITS_KEY
from sparseml.pytorch.utils.thinning import take_shapes, thin_model_from_checkpoint

_COLUMNS = ".columns"


class KeptPositions(SinusoidalPositionalEmbedding):
    """Sinusoids of which some columns are left, those numbered by the parameter ``columns``.

    The whole table is computed as before, also when it has to grow for a longer sentence.
    """

    columns: nn.Parameter

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the sinusoids of the columns that are left, ``[sentences, tokens, columns]``."""
        whole: Tensor = super().forward(*args, **kwargs)
        # what is added is zero; it shows which number belongs to which column
        return whole.index_select(-1, self.columns.long()) + (self.columns - self.columns.detach())


class KeptAttention(MultiheadAttention):
    """Attention of any width of its heads, with the scale that it was made with."""

    def forward(
        self,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        key_padding_mask: Tensor | None = None,
        incremental_state: Any = None,
        need_weights: bool = True,
        static_kv: bool = False,
        attn_mask: Tensor | None = None,
        before_softmax: bool = False,
        need_head_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what is read, ``[tokens, sentences, width]``, and the weights where asked for.

        Where no weights and no words before are asked for, torch's fused attention computes it.
        """
        more = need_weights or need_head_weights or before_softmax or static_kv
        own = self.bias_k is not None or self.add_zero_attn or self.beam_size > 1
        if more or own or incremental_state is not None or key is None:
            found: tuple[Tensor, Tensor | None] = super().forward(
                *(query, key, value, key_padding_mask, incremental_state, need_weights, static_kv),
                *(attn_mask, before_softmax, need_head_weights),
            )
            return found
        mask = attn_mask
        if key_padding_mask is not None:
            padding = key_padding_mask.bool()[:, None, None, :]
            mask = torch.zeros_like(padding, dtype=query.dtype).masked_fill(padding, -torch.inf)
            mask = mask if attn_mask is None else mask + attn_mask
        read = scaled_dot_product_attention(
            self._heads(self.q_proj(query)),
            self._heads(self.k_proj(key)),
            self._heads(self.v_proj(key if value is None else value)),
            None if mask is None else mask.to(query.dtype),
            self.dropout_module.p if self.training else 0.0,
            scale=self.scaling,
        )
        return self.out_proj(read.permute(2, 0, 1, 3).flatten(2)), None

    def _heads(self, made: Tensor) -> Tensor:
        return made.unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0, 3)


def make_shrinkable(model: nn.Module) -> None:
    """Let a Transformer work with fewer units, in place; as it is, it computes the same.

    Attention no longer hands its weights to a function of torch that demands whole widths, and
    sinusoidal positions get the parameter ``columns``, which is not trained.
    """
    module: Any
    for module in model.modules():
        if isinstance(module, MultiheadAttention):
            module._set_skip_embed_dim_check()
            if type(module) is MultiheadAttention:
                module.__class__ = KeptAttention
        elif type(module) is SinusoidalPositionalEmbedding:
            module.__class__ = KeptPositions
            numbers = torch.arange(module.embedding_dim, dtype=torch.float32)
            module.columns = nn.Parameter(numbers.to(module.weights.device), requires_grad=False)


class ShrunkWeights(dict[str, Tensor]):
    """Weights of a checkpoint that says that units went."""


def note_shrunk(checkpoint: dict[str, Any]) -> None:
    """Let the weights of a checkpoint be known as :class:`ShrunkWeights`, if they are."""
    units = (checkpoint.get("extra_state") or {}).get(UNITS_KEY)
    if units or any(name.endswith(_COLUMNS) for name in checkpoint.get("model") or ()):
        checkpoint["model"] = ShrunkWeights(checkpoint["model"])


def fit_to_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a Transformer the widths of a checkpoint that was written in or after shrinking.

    A model stays as it is where the weights are not of such a one, so that those of another
    architecture are refused when they are loaded.

    :param model: as its configuration says, before its weights are loaded
    :param weights: by name, of the checkpoint or a model
    """
    if not isinstance(weights, ShrunkWeights) and not any(n.endswith(_COLUMNS) for n in weights):
        return
    make_shrinkable(model)
    thin_model_from_checkpoint(model, weights)
    take_shapes(model, {name: list(value.shape) for name, value in weights.items()})
    for module in model.modules():
        if isinstance(module, MultiheadAttention):
            module.embed_dim = module.v_proj.weight.shape[0]
            module.head_dim = module.embed_dim // module.num_heads
