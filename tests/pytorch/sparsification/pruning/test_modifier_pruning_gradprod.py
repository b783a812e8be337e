from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.sparsification.pruning import GWProdPruningModifier

FIELDS = {"params": ["re:.*weight"], "init_sparsity": 0.5, "final_sparsity": 0.5}
FIELDS |= {"start_epoch": 0.0, "end_epoch": 4.0, "update_frequency": 1.0}


@pytest.mark.parametrize("together", [True, False])
def test_prunes_the_lowest_sums_anew_at_every_update(dots, feeding, together):
    net = dots((6, 6), (10,))
    net.layers[1].weight.data *= 5
    gradients = net.gradients(4)
    before = [layer.weight.data.clone() for layer in net.layers]
    modifier = GWProdPruningModifier(**FIELDS, num_grads=2, global_sparsity=together)
    modifier.initialize(net, grad_sampler=feeding(gradients))
    gone = [torch.zeros_like(weight) for weight in before]
    for epoch, (sparsity, used) in enumerate([(0.25, gradients[:2]), (0.5, gradients[2:])]):
        modifier.check_mask_update(net, float(epoch), 4, recomputation_sparsity=sparsity)
        scores = [
            sum((group[i] * weight).abs() for group in used) - 1e9 * gone[i]
            for i, weight in enumerate(before)
        ]
        flat = torch.cat([score.flatten() for score in scores])
        for i, score in enumerate(scores):
            ranked = flat if together else score.flatten()
            limit = ranked.sort().values[round(len(ranked) * sparsity)]
            gone[i] = (score < limit).double()
            torch.testing.assert_close(net.layers[i].weight.data, before[i] * (1 - gone[i]))


@pytest.mark.parametrize("mask_type", ["2:4", "block4", "filter"])
def test_patterns(conv_net, images, mask_type):
    fields = {**FIELDS, "num_grads": 2, "mask_type": mask_type}
    GWProdPruningModifier(**fields).apply(conv_net, grad_sampler=images)
    for layer in (conv_net[0], conv_net[2]):
        assert int((layer.weight == 0).sum()) == layer.weight.numel() // 2
