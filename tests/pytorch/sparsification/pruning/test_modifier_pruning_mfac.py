from __future__ import annotations

import math

import pytest
import torch

from sparseml.pytorch.sparsification.pruning import MFACPruningModifier
from sparseml.pytorch.sparsification.pruning.methods.mfac import MFACSettings
from sparseml.pytorch.sparsification.pruning.settings.memory import describe_bytes

FIELDS = {"params": ["re:.*weight"], "init_sparsity": 0.5, "final_sparsity": 0.5}
FIELDS |= {"start_epoch": 0.0, "end_epoch": 4.0, "update_frequency": 1.0}


def test_defaults():
    modifier = MFACPruningModifier(**FIELDS)
    assert (modifier._num_grads, modifier._damp, modifier._fisher_block_size) == (64, 1e-5, 2000)
    assert (modifier._grads_device, modifier._num_pages) == ("cpu", 1)
    assert modifier._available_devices == ["cuda:0" if torch.cuda.is_available() else "cpu"]
    assert modifier.use_gradient_buffering is None and modifier.global_sparsity is False


@pytest.mark.parametrize(
    "changes",
    [
        {"fisher_block_size": 12},
        {"fisher_block_size": 12, "block_implementation": "small_block"},
        {"fisher_block_size": 12, "block_implementation": "block"},
        {"fisher_block_size": None},
        {"fisher_block_size": None, "num_pages": 4},
    ],
)
def test_equals_the_plain_formulas(dots, feeding, changes):
    net = dots((5, 4), (9,))
    net.layers[0].weight.data[0] = 0.0
    gradients = net.gradients(20)
    vector = torch.cat([layer.weight.data.flatten() for layer in net.layers])
    live = vector != 0
    rows = torch.stack([torch.cat([g.flatten() for g in group]) for group in gradients])[:, live]
    size = changes["fisher_block_size"] or 25
    same = torch.arange(25)[:, None] // size == torch.arange(25) // size
    fisher = (rows.T @ rows / 20) * same + 0.01 * torch.eye(25).double()
    inverse = torch.linalg.inv(fisher)
    weights = vector[live]
    order = (weights**2 / inverse.diagonal()).argsort()[: round(29 * 0.5) - 4]
    errors = torch.zeros_like(weights)
    errors[order] = weights[order] / inverse.diagonal()[order]
    new = weights - inverse @ errors
    new[order] = 0.0
    expected = vector.clone()
    expected[live] = new
    modifier = MFACPruningModifier(
        **FIELDS,
        num_grads=20,
        damp=0.01,
        global_sparsity=True,
        available_devices=["cpu"],
        **changes,
    )
    modifier.apply(net, grad_sampler=feeding(gradients))
    found = torch.cat([layer.weight.data.flatten() for layer in net.layers])
    torch.testing.assert_close(found, expected)


def test_prunes_by_the_gradients_of_the_training(linear_net, train):
    modifier = MFACPruningModifier(**{**FIELDS, "start_epoch": 1.0}, num_grads=3)
    for _ in train(linear_net, [modifier], steps=8):
        pass
    assert int((linear_net[0].weight == 0).sum()) == 64


def test_too_few_gradients_of_the_training(linear_net, train):
    modifier = MFACPruningModifier(**FIELDS, num_grads=3)
    with pytest.raises(RuntimeError, match=r"needs 3 gradients of the training .* has kept 1"):
        list(train(linear_net, [modifier], steps=1))


def test_numbers_of_gradients_by_sparsity():
    settings = MFACSettings({0.0: 4, 0.5: 8, 0.8: 16}, 1e-5, None, 1, ["cpu"], "cpu")
    assert [settings.needed(s) for s in (0.0, 0.1, 0.5, 0.6, 0.9)] == [4, 8, 8, 16, 16]
    with pytest.raises(ValueError, match=r"num_grads must say .* from a sparsity of 0\.0 on"):
        MFACPruningModifier(**FIELDS, num_grads={0.5: 8})


@pytest.mark.parametrize("buffering", [True, None])
def test_buffering_needs_no_sampler(linear_net, buffering):
    MFACPruningModifier(**FIELDS, use_gradient_buffering=buffering).initialize(linear_net)


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({"fisher_block_size": None}, 10 * 120 + 2 * 10**2),
        ({"fisher_block_size": 40}, 10 * 120 + 2 * 10**2),
        ({"fisher_block_size": 8}, (10 + 8) * 120),
        ({"fisher_block_size": 40, "block_implementation": "small_block"}, (10 + 40) * 120),
        ({"fisher_block_size": 8, "block_implementation": "block"}, 10 * 120 + 2 * 10**2),
    ],
)
def test_what_it_takes_is_said_before_anything_happens(
    dots, feeding, caplog, monkeypatch, changes, needed
):
    net = dots((8, 10), (40,))
    modifier = MFACPruningModifier(**FIELDS, num_grads={0.0: 10, 0.9: 4}, **changes)
    size = describe_bytes(math.ceil(1.1 * 8 * needed))
    with caplog.at_level("INFO"):
        modifier.initialize(net, grad_sampler=feeding(net.gradients(1)))
    assert f"10 gradients of 120 weights take {size} on cpu" in caplog.text
    monkeypatch.setattr(
        "sparseml.pytorch.sparsification.pruning.methods.fisher_passes.free_bytes",
        lambda device: 1000,
    )
    modifier = MFACPruningModifier(**FIELDS, num_grads=10, **changes)
    with pytest.raises(RuntimeError, match=f"needs {size} on cpu for 10 gradients.*num_grads"):
        modifier.initialize(net, grad_sampler=feeding(net.gradients(1)))
