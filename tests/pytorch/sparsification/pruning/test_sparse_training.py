"""Sparse training on handwritten digits: it works, and moving connections is what makes it work."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import LearningRateFunctionModifier
from sparseml.pytorch.sparsification.pruning import (
    ACDCPruningModifier,
    RigLPruningModifier,
    TopKASTPruningModifier,
)

datasets = pytest.importorskip("sklearn.datasets")
EPOCHS, BATCH, SPARSITY = 25, 100, 0.97
EVERYTHING = "__ALL_PRUNABLE__"


def rigl(moved):
    return RigLPruningModifier(
        SPARSITY, 0.0, 20.0, 1.0, EVERYTHING, num_grads=8, init_update_fraction=moved
    )


def top_kast(backward):
    return TopKASTPruningModifier(
        SPARSITY, backward, 0.0, 20.0, 1.0, EVERYTHING, global_sparsity=False
    )


@pytest.fixture(scope="module")
def digits():
    images, labels = (torch.tensor(part) for part in datasets.load_digits(return_X_y=True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return (images[order] / 16).float(), labels[order]


def accuracy(modifier, digits):
    torch.manual_seed(1)
    images, labels = digits
    test, train = slice(0, 497), torch.arange(497, 1797)
    net = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )

    def samples():
        for batch in train[torch.randperm(1300)].split(BATCH):
            yield [images[batch]], {}, labels[batch]

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    rate = LearningRateFunctionModifier("cosine", 0.1, 0.001, 0.0, float(EPOCHS))
    manager = ScheduledModifierManager([modifier, rate])
    sampler = {"data_loader_builder": lambda: samples, "loss_fn": cross_entropy}
    stepper = manager.modify(net, optimizer, steps_per_epoch=13, grad_sampler=sampler)
    for _ in range(EPOCHS):
        for (batch,), _, target in samples():
            optimizer.zero_grad()
            cross_entropy(net(batch), target).backward()
            stepper.step()
    manager.finalize(net)
    weights = [param for param in net.parameters() if param.ndim > 1]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros / sum(weight.numel() for weight in weights) == pytest.approx(SPARSITY, abs=1e-3)
    return float((net(images[test]).argmax(1) == labels[test]).float().mean())


@pytest.mark.slow
def test_rigl_is_far_better_than_a_mask_that_stays(digits):
    moving, fixed = accuracy(rigl(0.3), digits), accuracy(rigl(0.0), digits)
    assert moving > 0.88
    assert moving > fixed + 0.1


@pytest.mark.slow
def test_top_kast_is_far_better_without_than_with_equal_masks(digits):
    exploring, fixed = accuracy(top_kast(0.77), digits), accuracy(top_kast(SPARSITY), digits)
    assert exploring > 0.88
    assert exploring > fixed + 0.1


@pytest.mark.slow
def test_acdc_reaches_its_sparsity_and_learns(digits):
    assert accuracy(ACDCPruningModifier(SPARSITY, 2, 21, 3, EVERYTHING), digits) > 0.9
