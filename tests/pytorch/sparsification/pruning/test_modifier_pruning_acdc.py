from __future__ import annotations

import math

import pytest
import torch

from sparseml.pytorch.sparsification import Modifier
from sparseml.pytorch.sparsification.pruning import ACDCPruningModifier

FIELDS = {
    "compression_sparsity": 0.75,
    "start_epoch": 0,
    "end_epoch": 10,
    "update_frequency": 2,
    "params": ["re:.*weight"],
}


def test_trace(linear_net, train):
    modifier = ACDCPruningModifier(**FIELDS)
    sparse, phases = set(), {}
    for epoch in train(linear_net, [modifier], 48):
        weights = [linear_net[0].weight, linear_net[2].weight]
        pruned = sum(int((mask == 0).sum()) for mask in modifier.state_dict().values())
        assert pruned in (0, 144)  # of 192
        if pruned:
            sparse.add(math.floor(epoch))
            assert sum(int((weight == 0).sum()) for weight in weights) >= 144
        phases[math.floor(epoch)] = modifier._is_phase_decompression
        assert modifier.applied_sparsity == (0.75 if pruned else 0.0)
    assert sparse == {2, 3, *range(6, 12)}
    assert [epoch for epoch, dense in phases.items() if dense] == [0, 1, 4, 5]
    assert modifier.ended and modifier.module_masks.enabled


def test_asking_for_the_sparsity_changes_nothing(linear_net, train):
    modifier = ACDCPruningModifier(**FIELDS)
    assert modifier.get_applied_sparsity_for_epoch(3.0, 4) == 0.75
    assert modifier._is_phase_decompression  # nothing has begun
    for epoch in train(linear_net, [modifier], 48):
        before = modifier.progress_state()["is_phase_decompression"]
        asked = {modifier.get_applied_sparsity_for_epoch(e, 4) for e in (0.0, 3.0)}
        assert asked == {0.0, 0.75}
        after = modifier.progress_state()["is_phase_decompression"]
        assert before is after is (epoch < 2 or 4 <= epoch < 6)
    in_one_shot = ACDCPruningModifier(**FIELDS)
    in_one_shot.apply(linear_net, finalize=False)
    assert not in_one_shot._is_phase_decompression


def test_pruned_weights_grow_from_zero_in_dense_phases(linear_net, train):
    modifier = ACDCPruningModifier(**FIELDS)
    values = {
        epoch: linear_net[2].weight.detach().clone() for epoch in train(linear_net, [modifier], 24)
    }
    pruned = values[3.75] == 0
    assert 0 < int(pruned.sum()) < pruned.numel()
    assert not values[4.0][pruned].any()  # its gradients were computed under the masks
    grown = values[4.25][pruned]
    assert grown.any()
    assert grown.abs().max() < values[1.75][pruned].abs().max()  # from zero, not taken back
    assert values[5.75][pruned].abs().mean() > grown.abs().mean()


@pytest.mark.parametrize("reset", [True, False])
def test_momentum_starts_from_zero_in_dense_phases(linear_net, train, reset):
    modifier = ACDCPruningModifier(**FIELDS, momentum_buffer_reset=reset)
    optimizer = torch.optim.SGD(linear_net.parameters(), lr=0.1, momentum=0.9)
    momentum = {}
    for epoch in train(linear_net, [modifier], 24, optimizer):
        momentum[epoch] = [
            float(s["momentum_buffer"].abs().sum()) for s in optimizer.state.values()
        ]
    zeroed = [epoch for epoch, values in momentum.items() if not any(values)]
    assert zeroed == ([4.0] if reset else [])


def test_only_changed_entries_lose_their_momentum_at_other_times(linear_net, train):
    optimizer = torch.optim.Adam(linear_net.parameters(), lr=0.01)
    for epoch in train(linear_net, [ACDCPruningModifier(**FIELDS)], 16, optimizer):
        for param in (linear_net[0].weight, linear_net[2].weight):
            state = optimizer.state[param]
            if epoch >= 2.0:
                zero = param == 0
                assert not state["exp_avg"][zero].any() and not state["exp_avg_sq"][zero].any()
            assert state["exp_avg"].any()


def test_whole_epochs_only():
    for field in ("start_epoch", "end_epoch", "update_frequency"):
        with pytest.raises(ValueError, match=f"{field} of ACDC.* whole number of epochs"):
            ACDCPruningModifier(**{**FIELDS, field: FIELDS[field] + 0.5})
    for frequency in (0, -1):
        with pytest.raises(ValueError, match="update_frequency"):
            ACDCPruningModifier(**{**FIELDS, "update_frequency": frequency})
    with pytest.raises(ValueError, match="end_epoch"):
        ACDCPruningModifier(**{**FIELDS, "start_epoch": 11})
    modifier = ACDCPruningModifier(**FIELDS)
    with pytest.raises(ValueError, match="start_epoch"):
        modifier.start_epoch = 0.5


def test_phases_in_steps(linear_net, train):
    fields = {"compression_sparsity": 0.75, "params": ["re:.*weight"]}
    modifier = ACDCPruningModifier(**fields, start_step=2, end_step=20, update_steps=3)
    masked = [
        any((mask == 0).any() for mask in modifier.state_dict().values())
        for _ in train(linear_net, [modifier], 22, steps_per_epoch=7)
    ]
    dense, sparse = [False] * 3, [True] * 3
    assert masked == [False] * 2 + (dense + sparse) * 2 + dense + [True] * 5


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, -0.1])
def test_sparsity_out_of_range(value):
    with pytest.raises(ValueError, match="compression_sparsity"):
        ACDCPruningModifier(**{**FIELDS, "compression_sparsity": value})


def test_patterns_and_uniform_sparsity(linear_net, sparsities):
    changes = {"compression_sparsity": 0.5, "mask_type": "2:4"}
    modifier = ACDCPruningModifier(**{**FIELDS, **changes})
    modifier.apply(linear_net)
    for layer in (linear_net[0], linear_net[2]):
        assert ((layer.weight.view(-1, 4) == 0).sum(1) == 2).all()
    modifier = ACDCPruningModifier(**FIELDS, global_sparsity=False)
    modifier.apply(linear_net)
    assert [sparsities(linear_net)[f"{layer}.weight"] for layer in (0, 2)] == [0.75, 0.75]
    with pytest.raises(ValueError, match=r"compression_sparsity must be 0\.5 with 2:4 masks"):
        ACDCPruningModifier(**FIELDS, mask_type="2:4").initialize(linear_net)


def test_one_shot_compresses(linear_net, sparsities):
    modifier = ACDCPruningModifier(**FIELDS)
    modifier.apply(linear_net)
    zeros = sum(int((layer.weight == 0).sum()) for layer in (linear_net[0], linear_net[2]))
    assert zeros == 144
    assert sparsities(linear_net)["0.bias"] == 0


def test_defaults():
    modifier = ACDCPruningModifier(**FIELDS)
    assert modifier._compression_sparsity == 0.75
    assert modifier._momentum_buffer_reset and modifier.leave_enabled and modifier.global_sparsity
    assert modifier.mask_type == "unstructured"
    assert str(Modifier.load_obj(str(modifier))) == str(modifier)
