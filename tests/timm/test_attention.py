"""Attention with separate layers for queries, keys and values."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.timm import SplitLinear, split_qkv


def _transformer() -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return VisionTransformer(**sizes, num_classes=3).eval()


def test_the_model_computes_the_same() -> None:
    model, images = _transformer(), torch.randn(2, 3, 8, 8)
    before = model(images)
    weight = model.blocks[0].attn.qkv.weight.detach().clone()
    assert split_qkv(model) == ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]
    torch.testing.assert_close(model(images), before)
    assert torch.equal(model.blocks[0].attn.qkv.k.weight, weight[16:32])
    assert split_qkv(model) == []


def test_a_pattern_for_one_part_prunes_that_part_only() -> None:
    model = _transformer()
    split_qkv(model)
    recipe = """
    pruning_modifiers:
      - !MagnitudePruningModifier
          params: ['re:.*attn.qkv.v.weight']
          init_sparsity: 0.5
          final_sparsity: 0.5
          start_epoch: 0
          end_epoch: 1
          update_frequency: 1
    """
    ScheduledModifierManager.from_yaml(recipe).apply(model)
    parts = model.blocks[1].attn.qkv
    assert [(part.weight == 0).float().mean().item() for part in (parts.q, parts.k, parts.v)] == [
        0.0,
        0.0,
        0.5,
    ]


def test_a_layer_without_bias_or_in_half_precision() -> None:
    layer = nn.Linear(4, 6, bias=False, dtype=torch.bfloat16)
    parts = SplitLinear(layer)
    assert parts.q.bias is None and parts.q.weight.dtype == torch.bfloat16


def test_outputs_that_are_no_multiple_of_three() -> None:
    with pytest.raises(ValueError, match="7 outputs cannot be cut into 3"):
        SplitLinear(nn.Linear(4, 7))
