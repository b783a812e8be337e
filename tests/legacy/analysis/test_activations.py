"""How sparse the activations of a layer are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ASResultType, ModuleASAnalyzer

X = torch.tensor([[1.0, -1.0, -2.0, -3.0], [1.0, 2.0, 0.0, -1.0]])


@pytest.fixture
def relu():
    return nn.ReLU()


def test_measures_every_pass(relu):
    analyzer = ModuleASAnalyzer(relu, track_inputs_sparsity=True, track_outputs_sparsity=True)
    relu(X), relu(-X)
    assert [round(value.item(), 4) for value in analyzer.inputs_sparsity] == [0.125, 0.125]
    assert [round(value.item(), 4) for value in analyzer.outputs_sparsity] == [0.625, 0.5]
    assert analyzer.outputs_sparsity_mean == 0.5625
    assert analyzer.outputs_sparsity_max == 0.625 and analyzer.outputs_sparsity_min == 0.5
    assert analyzer.outputs_sparsity_std == pytest.approx(0.08838835)
    assert analyzer.results_mean(ASResultType.inputs_sparsity) == 0.125
    assert analyzer.inputs_sample == [] and analyzer.outputs_sample == []


def test_by_dimension(relu):
    analyzer = ModuleASAnalyzer(relu, dim=0, track_outputs_sparsity=True, outputs_sample_size=5)
    relu(X), relu(X)
    assert analyzer.outputs_sparsity_mean.tolist() == [0.75, 0.5]
    assert [sample.shape for sample in analyzer.outputs_sample] == [(2, 5), (2, 5)]
    assert analyzer.outputs_sample_max.tolist() == [1.0, 2.0]
    assert analyzer.dim == 0


def test_samples_are_repeatable(relu):
    first, second, other = (
        ModuleASAnalyzer(relu, inputs_sample_size=7, seed=seed) for seed in (3, 3, 4)
    )
    relu(torch.randn(50)), relu(torch.randn(50))
    pairs = list(zip(first.inputs_sample, second.inputs_sample, strict=True))
    assert len(pairs) == 2 and all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.inputs_sample[0], other.inputs_sample[0])
    everything = torch.cat(first.inputs_sample)
    assert torch.isclose(first.inputs_sample_mean, everything.mean())
    assert torch.isclose(first.inputs_sample_std, everything.std())


def test_several_inputs():
    layer = nn.Bilinear(2, 2, 1)
    analyzer = ModuleASAnalyzer(layer, track_inputs_sparsity=True)
    layer(torch.zeros(1, 2), torch.ones(1, 2))
    assert [value.item() for value in analyzer.inputs_sparsity] == [1.0, 0.0]


def test_enable_disable_clear(relu):
    analyzer = ModuleASAnalyzer(
        relu, track_inputs_sparsity=True, outputs_sample_size=2, enabled=False
    )
    relu(X)
    with pytest.raises(RuntimeError, match="no inputs_sparsity was measured"):
        analyzer.inputs_sparsity_mean  # noqa: B018
    analyzer.enable()
    relu(X)
    analyzer.disable()
    relu(X)
    assert not analyzer.enabled and len(analyzer.inputs_sparsity) == 1
    assert analyzer.inputs_sparsity_std.isnan()
    analyzer.clear(ASResultType.inputs_sparsity)
    assert not analyzer.inputs_sparsity and len(analyzer.outputs_sample) == 1
    analyzer.clear()
    assert not analyzer.outputs_sample and not relu._forward_hooks


def test_layers_by_name():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    found = ModuleASAnalyzer.analyze_layers(net, ["1"], track_outputs_sparsity=True)
    net(X)
    assert list(found) == ["1"] and found["1"].module is net[1]
    assert len(found["1"].outputs_sparsity) == 1
    with pytest.raises(AttributeError, match="no layer '9'"):
        ModuleASAnalyzer.analyze_layers(net, ["9"])
