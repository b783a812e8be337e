from __future__ import annotations

import math

import torch
from torch import nn

from sparseml.pytorch.sparsification import Modifier
from sparseml.pytorch.sparsification.pruning import (
    GMPruningModifier,
    MovementPruningModifier,
    MovementPruningParamsScorer,
)

FIELDS = {
    "params": ["re:.*weight"],
    "init_sparsity": 0.1,
    "final_sparsity": 0.5,
    "start_epoch": 1.0,
    "end_epoch": 3.0,
    "update_frequency": 0.5,
}


def test_it_is_gradual_pruning_with_another_score(linear_net):
    modifier = MovementPruningModifier(**FIELDS)
    assert isinstance(modifier, GMPruningModifier)
    assert "global_sparsity" not in str(modifier)
    assert str(Modifier.load_obj(str(modifier))) == str(modifier)
    modifier.initialize(linear_net)
    assert isinstance(modifier.scorer, MovementPruningParamsScorer)


def test_weights_moving_towards_zero_go_however_large_they_are(train):
    # the target is reached by growing the small weights and shrinking the large ones
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[3.0, 2.0, 0.2, 0.1]])
    target = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    modifier = MovementPruningModifier(**FIELDS)
    modifier.initialize(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    for step in range(13):
        optimizer.zero_grad()
        (layer.weight - target).pow(2).sum().backward()
        epoch = step / 4
        if modifier.update_ready(epoch, 4):
            modifier.scheduled_update(layer, optimizer, epoch, 4)
        modifier.optimizer_pre_step(layer, optimizer, epoch, 4)
        optimizer.step()
        modifier.optimizer_post_step(layer, optimizer, epoch, 4)
    assert modifier.ended
    assert (layer.weight != 0).tolist() == [[False, False, True, True]]


def test_every_step_counts_once(linear_net):
    modifier = MovementPruningModifier(**FIELDS)
    modifier.initialize(linear_net)
    weight = linear_net[0].weight
    expected = torch.zeros_like(weight, dtype=torch.float64)
    optimizer = torch.optim.SGD(linear_net.parameters(), lr=0.1)
    for step in range(4):  # before the start, too
        optimizer.zero_grad()
        linear_net(torch.randn(6, 8)).pow(2).mean().backward()
        expected -= 0.01 * (weight.grad.double() * weight.detach().double())
        modifier.optimizer_pre_step(linear_net, optimizer, step / 4, 4)
        optimizer.step()
        modifier.optimizer_post_step(linear_net, optimizer, step / 4, 4)
    optimizer.zero_grad()
    linear_net(torch.randn(6, 8)).pow(2).mean().backward()
    expected -= 0.01 * (weight.grad.double() * weight.detach().double())
    modifier.scheduled_update(linear_net, optimizer, 1.0, 4)
    modifier.optimizer_pre_step(linear_net, optimizer, 1.0, 4)
    scores = modifier.scorer._movement_scores[0].double()
    assert torch.allclose(scores, expected, atol=1e-7)
    pruned = weight == 0
    assert int(pruned.sum()) == 13
    assert expected[~pruned].min() >= expected[pruned].max() - 1e-7


def test_pruned_weights_stay_pruned(linear_net, train, caplog):
    previous = torch.zeros(16, 8, dtype=torch.bool)
    for _ in train(linear_net, [MovementPruningModifier(**FIELDS)], steps=16):
        zero = linear_net[0].weight == 0
        assert not (previous & ~zero).any()
        previous = zero
    assert previous.double().mean() == 0.5
    assert "no weight has moved" not in caplog.text


def test_one_shot_without_any_movement_has_exact_counts_and_a_warning(linear_net, caplog):
    modifier = MovementPruningModifier(**FIELDS)
    modifier.initialize(linear_net, epoch=math.inf)
    assert "no weight has moved yet" in caplog.text
    assert int((linear_net[0].weight == 0).sum()) == 64
