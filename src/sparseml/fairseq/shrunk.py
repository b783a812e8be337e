"""Transformers of fairseq that can lose units, and those of checkpoints that have lost some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from fairseq.modules import MultiheadAttention, SinusoidalPositionalEmbedding
from torch import Tensor, nn

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


def make_shrinkable(model: nn.Module) -> None:
    """Let a Transformer work with fewer units, in place; as it is, it computes the same.

    Attention no longer hands its weights to a function of torch that demands whole widths, and
    sinusoidal positions get the parameter ``columns``, which is not trained.
    """
    for module in model.modules():
        if isinstance(module, MultiheadAttention):
            module._set_skip_embed_dim_check()
        elif type(module) is SinusoidalPositionalEmbedding:
            module.__class__ = KeptPositions
            numbers = torch.arange(module.embedding_dim, dtype=torch.float32)
            module.columns = nn.Parameter(numbers.to(module.weights.device), requires_grad=False)


def is_shrinkable(model: nn.Module) -> bool:
    """Return whether :func:`make_shrinkable` was called, or its like for a checkpoint."""
    return any(m.skip_embed_dim_check for m in model.modules() if isinstance(m, MultiheadAttention))


def fit_to_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a Transformer the widths of a checkpoint that was written in or after shrinking.

    Any other model, and one that fits already, stays as it is.

    :param model: as its configuration says, before its weights are loaded
    :param weights: of the checkpoint, by name
    """
    if not any(name.endswith(_COLUMNS) for name in weights) and not _is_narrower(model, weights):
        return
    make_shrinkable(model)
    thin_model_from_checkpoint(model, weights)
    take_shapes(model, {name: list(value.shape) for name, value in weights.items()})
    for module in model.modules():
        if isinstance(module, MultiheadAttention):
            module.embed_dim = module.v_proj.weight.shape[0]
            module.head_dim = module.embed_dim // module.num_heads


def _is_narrower(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Whether attention has fewer channels; without sinusoids nothing else tells."""
    return any(
        f"{name}.v_proj.weight" in weights
        and weights[f"{name}.v_proj.weight"].shape != module.v_proj.weight.shape
        for name, module in model.named_modules()
        if isinstance(module, MultiheadAttention)
    )
