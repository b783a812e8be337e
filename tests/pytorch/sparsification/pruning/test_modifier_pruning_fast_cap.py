from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.sparsification.pruning import FastCAPruningModifier, MagnitudePruningModifier

FIELDS = {"params": ["re:.*weight"], "init_sparsity": 0.5, "final_sparsity": 0.5}
FIELDS |= {"start_epoch": 0.0, "end_epoch": 4.0, "update_frequency": 1.0, "damp": 0.01}


def test_golden_vector(dots, feeding):
    grads = [
        [1, 0, 2, -1, 0, 1, 1, 0],
        [0.5, -1, 0, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0.5, 0, -1, 2],
    ]
    net = dots((2, 4))
    net.layers[0].weight.data = torch.tensor([[1, -0.5, 2, 0.25], [-0.3, 0.8, 0.1, -1.2]]).double()
    fields = {**FIELDS, "num_grads": 3, "fisher_block_size": 4, "block_size": 4}
    sampler = feeding([[torch.tensor(grad).double().view(2, 4)] for grad in grads])
    FastCAPruningModifier(**fields, fisher_dtype="float64").apply(net, grad_sampler=sampler)
    expected = torch.tensor([[1, 0, 1.847998, 0], [0, 0.797745, 0, -1.291301]]).double()
    torch.testing.assert_close(net.layers[0].weight.data, expected, rtol=0, atol=2e-6)


def test_differs_from_magnitude_and_loses_less(dots, feeding):
    net = dots((12, 16))
    gradients = net.gradients(60)
    before = net.layers[0].weight.data.clone()
    fields = {**FIELDS, "num_grads": 60, "fisher_block_size": 16}
    FastCAPruningModifier(**fields).apply(net, grad_sampler=feeding(gradients))
    found = net.layers[0].weight.data.clone()
    net.layers[0].weight.data = before.clone()
    plain = {key: value for key, value in FIELDS.items() if key != "damp"}
    MagnitudePruningModifier(**plain).apply(net)
    stack = torch.stack([one[0] for one in gradients])
    fisher = torch.einsum("tri,trj->ij", stack, stack)

    def loss(weight):
        change = weight - before
        return float(torch.einsum("ri,ij,rj->", change, fisher, change))

    assert not torch.equal(found != 0, net.layers[0].weight.data != 0)
    assert loss(found) < loss(net.layers[0].weight.data)


def test_defaults_and_fields():
    fields = {key: value for key, value in FIELDS.items() if key != "damp"}
    modifier = FastCAPruningModifier(**fields, global_sparsity=False)
    assert (modifier.damp, modifier.num_grads, modifier.fisher_block_size) == (1e-7, 1024, 50)
    assert modifier.global_sparsity is False and "global_sparsity" not in str(modifier)
    with pytest.raises(ValueError, match="global_sparsity is always False, found True: every"):
        FastCAPruningModifier(**FIELDS, global_sparsity=True)
    with pytest.raises(ValueError, match="mask_type must be 'unstructured', found '2:4'"):
        FastCAPruningModifier(**FIELDS, mask_type="2:4")


def test_more_dampening_is_reported(dots, feeding, caplog):
    net = dots((4, 8))
    gradients = [[torch.randn(4, 8).double()]]
    fields = {**FIELDS, "damp": 1e-12, "num_grads": 1, "fisher_block_size": 8}
    FastCAPruningModifier(**fields).apply(net, grad_sampler=feeding(gradients))
    assert "was not positive definite with damp 1e-12" in caplog.text
    assert int((net.layers[0].weight == 0).sum()) == 16


def test_what_it_takes_is_said_before_anything_happens(dots, feeding, caplog, monkeypatch):
    net = dots((4, 8), (6, 8))
    fields = {**FIELDS, "num_grads": 1, "fisher_block_size": 8}
    with caplog.at_level("INFO"):
        FastCAPruningModifier(**fields).initialize(net, grad_sampler=feeding(net.gradients(1)))
    # float32: two matrices of 8 x 8, and five copies of 48 weights
    assert "Fisher matrices of 2 parameters take 1.47 kB" in caplog.text
    monkeypatch.setattr(
        "sparseml.pytorch.sparsification.pruning.methods.fisher_passes.free_bytes",
        lambda device: 1000,
    )
    with pytest.raises(RuntimeError, match=r"needs 1\.47 kB on cpu.*fisher_block_size"):
        FastCAPruningModifier(**fields).initialize(net, grad_sampler=feeding(net.gradients(1)))
