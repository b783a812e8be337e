"""The heads of torch's own ``MultiheadAttention``, and attention that may have fewer of them.

That layer is one operation, which demands as many heads as fill its width. Where it loses some it
becomes a :class:`SlimAttention`, with the same parameters under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseml.pytorch.units.group import Member, UnitGroup
from sparseml.pytorch.units.index_maps import repeats, tiles

_PARTS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


class SlimAttention(nn.MultiheadAttention):
    """Attention of any number of heads, that ``MultiheadAttention`` becomes when it loses some.

    ``embed_dim`` and ``head_dim`` stay what they were, and with the latter the scale of the scores;
    there may be fewer heads, of fewer channels. Learned biases of keys and values (``add_bias_kv``,
    ``add_zero_attn``) are not for it.
    """

    unit_gates: Mapping[str, Callable[[], Tensor]] = {}
    """Factors ``[channels]`` on the channels of queries (``qk``) and of all heads (``vo``)."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, with the arguments and results of ``MultiheadAttention``."""
        batched = query.dim() == 3
        given = [query, key, value]
        if not batched:
            given = [one.unsqueeze(0) for one in given]
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            given = [one.transpose(0, 1) for one in given]
        q, k, v = (
            F.linear(one, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for one, (weight, bias) in zip(given, self._projections(), strict=True)
        )
        if "qk" in self.unit_gates:
            q = q * self.unit_gates["qk"]().to(q).unflatten(0, (self.num_heads, 1, -1))
        mask = self._mask(q, attn_mask, key_padding_mask)
        weights, scale = None, self.head_dim**-0.5
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            scores = q @ k.transpose(-2, -1) * scale
            weights = (scores if mask is None else scores + mask).softmax(dim=-1)
            heads = F.dropout(weights, dropout) @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights if batched else weights[0]
        else:
            heads = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
        joined = heads.transpose(1, 2).flatten(2)
        if "vo" in self.unit_gates:
            joined = joined * self.unit_gates["vo"]().to(joined)
        out = self.out_proj(joined)
        if not batched:
            return out[0], weights
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _projections(self) -> list[tuple[Tensor, Tensor | None]]:
        whole = self.in_proj_weight
        weights = [getattr(self, p) for p in _PARTS] if whole is None else whole.chunk(3)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return list(zip(weights, biases, strict=True))

    def _mask(self, q: Tensor, attn: Tensor | None, padding: Tensor | None) -> Tensor | None:
        """What is added to the scores, of a shape that broadcasts to ``[batch, heads, L, S]``."""
        added = None
        for mask, shape in ((attn, None), (padding, (len(q), 1, 1, -1))):
            if mask is None:
                continue
            if mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, -torch.inf)
            if mask.dim() == 3 and shape is None:
                mask = mask.unflatten(0, (-1, self.num_heads))
            mask = mask if shape is None else mask.reshape(shape)
            added = mask if added is None else added + mask
        return added


def make_slim(model: nn.Module, layer: nn.MultiheadAttention) -> None:
    """Turn an attention layer of ``model`` into a :class:`SlimAttention`; it stays the object."""
    layer.__class__ = SlimAttention
    # torch asks for this before it takes a fast path that knows but full widths
    layer._qkv_same_embed_dim = False
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and layer in module.modules():
            module.use_nested_tensor = False


def make_whole(layer: SlimAttention) -> None:
    """Undo :func:`make_slim` where nothing was removed; other layers stay as they are."""
    width = layer.num_heads * layer.head_dim
    projections = [weight for weight, _ in layer._projections()]
    if all(len(weight) == width for weight in projections) and width == layer.embed_dim:
        layer.__class__ = nn.MultiheadAttention  # type: ignore[assignment]
        layer._qkv_same_embed_dim = layer.in_proj_weight is not None


def fused_heads(name: str, layer: nn.MultiheadAttention) -> UnitGroup:
    """Return the heads of an attention layer of torch.

    :raises ValueError: for one with learned biases of keys and values
    """
    if layer.bias_k is not None or layer.add_zero_attn:
        raise ValueError("add_bias_kv and add_zero_attn are not supported")
    heads = repeats(layer.num_heads, layer.out_proj.in_features // layer.num_heads)
    packed = layer.in_proj_weight is not None
    given = [("in_proj_weight", tiles(heads, 3))] if packed else [(part, heads) for part in _PARTS]
    members = [Member(f"{name}.{part}".lstrip("."), 0, index) for part, index in given]
    if layer.in_proj_bias is not None:
        members.append(Member(f"{name}.in_proj_bias".lstrip("."), 0, tiles(heads, 3), follows=True))
    members.append(Member(f"{name}.out_proj.weight".lstrip("."), 1, heads))
    return UnitGroup(f"heads of {name}", layer.num_heads, members)


def fixed_values(layer: nn.MultiheadAttention) -> Tensor:
    """Return what each channel of the heads is where its values do not depend on the input.

    :return: ``[heads * head_dim]``, nan for the others
    """
    whole: Any = layer.in_proj_weight
    weight = layer.v_proj_weight if whole is None else whole.chunk(3)[2]
    bias = layer.in_proj_bias
    fixed = torch.zeros_like(weight[:, 0]) if bias is None else bias.chunk(3)[2]
    return torch.where((weight == 0).all(dim=1), fixed, torch.nan)
