from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.sparsification import Modifier
from sparseml.pytorch.sparsification.pruning import EmpiricalBlockFisherInverse, OBSPruningModifier

FIELDS = {"params": ["re:.*weight"], "init_sparsity": 0.5, "final_sparsity": 0.5}
FIELDS |= {"start_epoch": 0.0, "end_epoch": 4.0, "update_frequency": 1.0}
EXACT = {**FIELDS, "damp": 1e-3, "fisher_dtype": "float64"}


def test_defaults_are_those_of_old_recipes():
    modifier = OBSPruningModifier(**FIELDS)
    assert (modifier.num_grads, modifier.damp, modifier.fisher_block_size) == (1024, 1e-7, 1)
    assert (modifier._num_grads, modifier._damp, modifier._fisher_block_size) == (1024, 1e-7, 1)
    assert modifier._grad_sampler_kwargs is None and modifier.global_sparsity is True
    assert modifier.leave_enabled is True and modifier.num_recomputations == 1
    assert modifier.weight_update == "simultaneous"
    assert OBSPruningModifier(**FIELDS, damp="1e-5").damp == 1e-5


def test_golden_vector(dots, feeding):
    fisher = torch.tensor(
        [[2, 0.5, 0, 0], [0.5, 1, 0.2, 0], [0, 0.2, 1.5, 0.3], [0, 0, 0.3, 0.8]]
    ).double()
    root = torch.linalg.cholesky(fisher - 1e-3 * torch.eye(4))
    sampler = feeding([[2 * column] for column in root.T])
    expected = {"simultaneous": [0.877947, 0, 1.979500, 0], "joint": [0.875, 0, 1.983333, 0]}
    for rule, weights in expected.items():
        net = dots((4,))
        net.layers[0].weight.data = torch.tensor([1, -0.5, 2, 0.25]).double()
        fields = {**EXACT, "fisher_block_size": 4, "num_grads": 4, "update": rule}
        OBSPruningModifier(**fields).apply(net, grad_sampler=sampler)
        wanted = torch.tensor(weights).double()
        torch.testing.assert_close(net.layers[0].weight.data, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("mask_type", ["unstructured", "block4"])
def test_equals_the_plain_formulas_at_every_step(dots, feeding, mask_type):
    """Two updates and two recomputations each, against dense inverses of one block."""
    group = 4 if mask_type == "block4" else 1
    net = dots((2, 16))
    gradients = net.gradients(50)
    fields = {**EXACT, "fisher_block_size": 16, "num_grads": 50, "num_recomputations": 2}
    modifier = OBSPruningModifier(**fields, mask_type=mask_type)
    modifier.initialize(net, grad_sampler=feeding(gradients))
    weights = net.layers[0].weight.data.clone()
    stack = torch.stack([one[0] for one in gradients])
    for epoch, (sparsity, ways) in enumerate([(0.5, (0.25, 0.5)), (0.75, (0.625, 0.75))]):
        for way in ways:
            live, inverses = weights != 0, []
            for row in range(2):
                grads = stack[:, row] * live[row]
                inner = grads.T @ grads / 50 + 1e-3 * torch.eye(16).double()
                inverses.append(torch.linalg.inv(inner))
            costs = []
            for row, inverse in enumerate(inverses):
                for start in range(0, 16, group):
                    part = slice(start, start + group)
                    w = weights[row, part]
                    cost = float(w @ torch.linalg.solve(inverse[part, part], w)) / 2
                    costs.append((-1.0 if not live[row, part].any() else cost, row, start))
            errors, gone = torch.zeros_like(weights), ~live
            for _, row, start in sorted(costs)[: round(32 // group * way)]:
                part = slice(start, start + group)
                if live[row, part].any():
                    inner = inverses[row][part, part]
                    errors[row, part] = torch.linalg.solve(inner, weights[row, part])
                gone[row, part] = True
            change = torch.stack([inverses[row] @ errors[row] for row in range(2)])
            weights = torch.where(gone, 0.0, weights - change)
        modifier.check_mask_update(net, float(epoch), 4, recomputation_sparsity=sparsity)
        torch.testing.assert_close(net.layers[0].weight.data, weights, rtol=1e-5, atol=1e-7)


def test_patterns():
    with pytest.raises(ValueError, match=r"fisher_block_size .* multiple of 4 .* found 6"):
        OBSPruningModifier(**FIELDS, mask_type="2:4", fisher_block_size=6)
    with pytest.raises(ValueError, match=r"fisher_block_size .* multiple of 4 .* found 50"):
        OBSPruningModifier(**FIELDS, mask_type="block4", fisher_block_size=50)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("fisher_block_layout", "pading", "'padded', 'divisor' or 'row'"),
        ("fisher_samples", "each", "'batch'"),
        ("fisher_memory", "lots", "fisher_memory: a size in memory is written as 4GB"),
        ("fisher_dtype", "half", "'float32'"),
        ("fisher_inv_device", "gpu7", "fisher_inv_device must name a device"),
        ("recomputation_inter_func", "inverse_cubic", "'linear'"),
        ("weight_update", "both", "'simultaneous'"),
        ("num_recomputations", 0, "num_recomputations must be at least 1"),
    ],
)
def test_wrong_fields(field, value, message):
    with pytest.raises(ValueError, match=message):
        OBSPruningModifier(**FIELDS, **{field: value})


def test_yaml():
    modifier = Modifier.load_obj(
        """!OBSPruningModifier
            params: __ALL_PRUNABLE__
            init_sparsity: 0.7
            final_sparsity: 0.9
            start_epoch: 2.0
            end_epoch: 8.0
            update_frequency: 2.0
            damp: 1e-7
            fisher_block_size: 4
            num_grads: 128
            grad_sampler_kwargs: {batch_size: 16}
        """
    )
    assert (modifier.damp, modifier.num_grads) == (1e-7, 128)
    assert modifier.grad_sampler_kwargs == {"batch_size": 16}


def test_the_inverse_of_old_name():
    grads = torch.randn(6, 10)
    inverse = EmpiricalBlockFisherInverse(6, 4, 10, 0.1, "cpu")
    for grad in grads:
        inverse.add_grad(grad)
    block = torch.linalg.inv(grads[:, :4].T @ grads[:, :4] / 6 + 0.1 * torch.eye(4))
    torch.testing.assert_close(inverse.diag()[:4], block.diagonal(), rtol=1e-4, atol=1e-5)
