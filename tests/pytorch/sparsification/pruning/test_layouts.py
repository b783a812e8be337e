"""Layers that keep their weight as ``[in, out]`` are pruned as those that keep ``[out, in]``."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparseml.pytorch.sparsification import pruning
from sparseml.pytorch.sparsification.pruning import GMPruningModifier

GRADUAL = {
    "params": ["re:.*weight"],
    "init_sparsity": 0.5,
    "final_sparsity": 0.5,
    "start_epoch": 0.0,
    "end_epoch": 1.0,
    "update_frequency": 1.0,
}
FISHER = {"fisher_block_size": 4, "damp": 1e-3, "num_grads": 6}
PRUNERS = {
    "GMPruningModifier": {},
    "GWProdPruningModifier": {"num_grads": 4},
    "MFACPruningModifier": {"num_grads": 4, "fisher_block_size": 4},
    "OBSPruningModifier": FISHER,
    "CAPruningModifier": FISHER,
    "FastCAPruningModifier": {**FISHER, "damp": 1e-2},
    "FastCAP by inputs": {"num_grads": 6, "damp": 1e-2, "fisher": "inputs"},
}


def pair():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 8)).double()
    swapped = nn.Sequential(Conv1D(12, 8), nn.Tanh(), Conv1D(8, 12)).double()
    with torch.no_grad():
        for one, other in zip(plain, swapped, strict=True):
            if isinstance(one, nn.Linear):
                other.weight.copy_(one.weight.T)
                other.bias.copy_(one.bias)
    return plain, swapped


@pytest.mark.parametrize("mask_type", ["unstructured", "2:4", "block4", "filter", "channel", "4x1"])
@pytest.mark.parametrize("name", PRUNERS)
def test_masks_and_weights_are_those_of_the_plain_layer(name, mask_type):
    if "CAP" in name and mask_type in ("filter", "channel", "4x1"):
        pytest.skip("prunes runs of inputs")
    data = [([torch.randn(4, 8).double()], {}, torch.randn(4, 8).double()) for _ in range(6)]
    sampler = {"data_loader_builder": lambda: data, "loss_fn": nn.functional.mse_loss}
    found = []
    for net in pair():
        kind = name.replace("FastCAP by inputs", "FastCAPruningModifier")
        modifier = getattr(pruning, kind)(**GRADUAL, **PRUNERS[name], mask_type=mask_type)
        found.append(modifier.outcome(net, grad_sampler={**sampler, "progress_bar": False}))
    for key in ("0.weight", "2.weight"):
        assert torch.equal(found[0][key].mask, found[1][key].mask.T)
        assert found[1][key].mask.shape == found[1][key].weight.shape
        torch.testing.assert_close(found[0][key].weight, found[1][key].weight.T)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_keep_n_of_m_inputs(groups):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(8, 6, 3, groups=groups)
    GMPruningModifier(**GRADUAL, mask_type="2:4").apply(layer)
    kept = (layer.weight != 0).view(2, 4, *layer.weight.shape[1:]).sum(1)
    assert (kept == 2).all()
    filters = nn.ConvTranspose2d(8, 6, 3, groups=groups)
    GMPruningModifier(**GRADUAL, mask_type="filter").apply(filters)
    by_group = filters.weight.view(groups, 8 // groups, 6 // groups, -1)
    gone = (by_group == 0).transpose(1, 2).flatten(2).all(-1)
    assert int(gone.sum()) == 3
