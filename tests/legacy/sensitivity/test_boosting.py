"""Thresholds of activations raised until the model's results suffer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from sparseml.pytorch.nn import FATReLU
from sparseml.pytorch.optim import LayerBoostResults, ModuleASOneShootBooster
from sparseml.pytorch.optim.sensitivity_as import ASLayerTracker
from sparseml.pytorch.utils import LossWrapper


@pytest.fixture
def booster():
    """A model that adds up what its ReLU lets through of 0.1, 0.2, ..., 1.6."""
    values = torch.arange(1, 17).reshape(4, 4) / 10
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    loss = LossWrapper(lambda pred, labels: (labels - pred.sum(1)).mean())
    dataset = TensorDataset(values, values.sum(1))
    return model, ModuleASOneShootBooster(model, "cpu", dataset, 2, loss, {"num_workers": 0})


def test_the_highest_threshold_that_the_loss_allows(booster) -> None:
    model, booster = booster
    results = booster.run_layers(["1"], 0.25, "__loss__", metric_increases=True, precision=1e-3)
    assert list(results) == ["1"]
    found = results["1"]
    # 0.1 to 0.4 weigh 1.0, a quarter for each of the four samples; 0.5 would be too much
    assert 0.4 < found.threshold <= 0.501
    assert model[1].get_threshold() == pytest.approx(found.threshold)
    assert isinstance(model[1], FATReLU)
    assert isinstance(found, LayerBoostResults) and found.name == "1"
    assert found.baseline_as.tolist() == [0.0, 0.0]
    assert found.boosted_as.tolist() == [0.5, 0.0]
    assert float(found.baseline_loss.result_mean("__loss__")) == pytest.approx(0.0, abs=1e-6)
    assert float(found.boosted_loss.result_mean("__loss__")) == pytest.approx(0.25)
    with pytest.raises(AttributeError):
        found.threshold = 1.0


def test_no_room(booster) -> None:
    model, booster = booster
    found = booster.run_layers(["1"], -1.0, "__loss__", metric_increases=True)["1"]
    assert found.threshold == 0.0 and model[1].get_threshold() == 0.0
    assert found.boosted_loss is found.baseline_loss


def test_a_metric_that_falls_when_the_model_gets_worse(booster) -> None:
    _, booster = booster
    found = booster.run_layers(["1"], 0.0, "__loss__", metric_increases=False)["1"]
    # the loss rises, which counts as better, so that all may go
    assert found.threshold > 1.59 and found.boosted_as.mean() > 0.9


def test_wrong_input(booster) -> None:
    _, booster = booster
    with pytest.raises(ValueError, match="precision must be above 0"):
        booster.run_layers(["1"], 0.1, "__loss__", True, precision=0.0)
    with pytest.raises(AttributeError, match="no layer '7'"):
        booster.run_layers(["7"], 0.1, "__loss__", True)
    with pytest.raises(KeyError):
        booster.run_layers(["1"], 0.1, "top1", True)
    assert ASLayerTracker.__name__ == "ASLayerTracker"
