"""Epoch range, weight decay and sparsification logging."""

from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.sparsification import (
    EpochRangeModifier,
    SetWeightDecayModifier,
    SparsificationLoggingModifier,
)
from sparseml.sparsification.types import SparsificationTypes


def decays(run):
    return [group["weight_decay"] for group in run.optimizer.param_groups]


class TestEpochRange:
    def test_serialised_form_and_identifier(self):
        modifier = EpochRangeModifier(0.0, 3.0)
        assert str(modifier) == "!EpochRangeModifier\n    end_epoch: 3.0\n    start_epoch: 0.0"
        assert modifier.identifier() == "EpochRangeModifier-475458c5f3aec75a9bbfc98b9e7243dd"

    def test_types_and_range(self):
        modifier = EpochRangeModifier(1, -1)
        assert modifier.sparsification_types == [
            SparsificationTypes.general,
            SparsificationTypes.epoch,
        ]
        assert (modifier.start_epoch, modifier.end_epoch) == (1.0, -1.0)
        with pytest.raises(ValueError, match="end_epoch of EpochRangeModifier"):
            EpochRangeModifier(2.0, 1.0)

    def test_leaves_everything_alone(self, run):
        before = [param.clone() for param in run.model.parameters()]
        assert run.drive(EpochRangeModifier(0.0, 1.0), 2) == [0.7] * 8
        assert all(map(torch.equal, before, run.model.parameters()))


class TestWeightDecay:
    def test_sets_at_the_start(self, run):
        modifier = SetWeightDecayModifier("1e-4", start_epoch=0.5)
        assert run.drive(modifier, 1, read=decays) == [[0.1, 0.1]] * 2 + [[1e-4, 1e-4]] * 2
        assert run.logged == [("Modifier Weight Decay", 1e-4, 2)]

    def test_only_the_groups_named(self, run):
        assert run.drive(SetWeightDecayModifier(0, param_groups=[1]), 0.25, read=decays) == [
            [0.1, 0.0]
        ]

    def test_fields(self):
        modifier = SetWeightDecayModifier(0.1, end_epoch=4.0)
        assert modifier.sparsification_types == [SparsificationTypes.regularization]
        assert modifier.end_epoch == -1.0
        for wrong in (-0.1, float("nan"), "much"):
            with pytest.raises(ValueError, match="weight_decay must be"):
                modifier.weight_decay = wrong
        with pytest.raises(TypeError, match="weight_decay must be a number"):
            SetWeightDecayModifier(None)

    def test_optimizer_without_weight_decay(self, run):
        run.optimizer = torch.optim.Rprop(run.model.parameters())
        with pytest.raises(ValueError, match=r"Rprop has no weight_decay .* etas"):
            run.drive(SetWeightDecayModifier(0.1), 1)

    def test_groups_must_exist(self, run):
        with pytest.raises(IndexError, match="names group 5"):
            run.drive(SetWeightDecayModifier(0.1, param_groups=[5]), 1)


class TestSparsificationLogging:
    def test_logs_at_every_update(self, run):
        with torch.no_grad():
            run.model[0].weight[:2] = 0.0
        modifier = SparsificationLoggingModifier(0.5, 2.0, 0.5)
        run.drive(modifier, 3)
        tags = {tag for tag, _, _ in run.logged}
        assert "SparsificationSummaries/OperationCounts" in tags
        sparse = "SparsificationPruning/SparseParameters/0.weight/percent"
        assert {(value, step) for tag, value, step in run.logged if tag == sparse} == {
            (0.5, 0.5), (0.5, 1.0), (0.5, 1.5), (0.5, 2.0),
        }  # fmt: skip

    def test_fields(self):
        modifier = SparsificationLoggingModifier(0.0)
        assert modifier.sparsification_types == []
        assert (modifier.end_epoch, modifier.update_frequency) == (-1.0, 1.0)
