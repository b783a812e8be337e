"""Tensors that are whole; those in parts need several processes, see the tests of pruning."""

from __future__ import annotations

import torch
from torch import nn

from sparseml.pytorch.utils.tensors.sharded import full_value, is_sharded, local_part, shard_like


def test_plain_tensors_pass_through() -> None:
    param = nn.Parameter(torch.arange(6.0).view(2, 3))
    mask = torch.ones(2, 3)
    assert not is_sharded(param) and not is_sharded(None)
    assert shard_like(mask, param) is mask
    for view in (full_value(param), local_part(param)):
        assert view.data_ptr() == param.data_ptr()
        assert not view.requires_grad
    local_part(param).mul_(2)
    assert param.sum() == 30
