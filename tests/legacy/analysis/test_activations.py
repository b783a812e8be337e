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
    assert [value.shape for value in analyzer.outputs_sparsity] == [(1,), (1,)]
    assert analyzer.outputs_sparsity_mean == 0.5625 and analyzer.outputs_sparsity_mean.ndim == 0
    assert analyzer.outputs_sparsity_max == 0.625 and analyzer.outputs_sparsity_min == 0.5
    assert analyzer.outputs_sparsity_std == pytest.approx(0.08838835)
    assert analyzer.results_mean(ASResultType.inputs_sparsity) == 0.125
    assert analyzer.inputs_sample == [] and analyzer.outputs_sample == []


def test_inputs_are_measured_before_the_layer_runs():
    relu = nn.ReLU(inplace=True)
    analyzer = ModuleASAnalyzer(
        relu, track_inputs_sparsity=True, track_outputs_sparsity=True, inputs_sample_size=50
    )
    relu(torch.tensor([1.0, -1.0, -2.0, 3.0]))
    assert analyzer.inputs_sparsity_mean == 0.0 and analyzer.outputs_sparsity_mean == 0.5
    assert analyzer.inputs_sample_min == -2.0


def test_by_dimension(relu):
    analyzer = ModuleASAnalyzer(relu, dim=0, track_outputs_sparsity=True, outputs_sample_size=5)
    relu(X), relu(X)
    assert [value.tolist() for value in analyzer.outputs_sparsity] == [[0.75, 0.5]] * 2
    # put together along dimension 0, which is then reduced
    assert analyzer.outputs_sparsity_mean == 0.625 and analyzer.outputs_sparsity_mean.ndim == 0
    assert analyzer.outputs_sparsity_std == pytest.approx(0.14433757)
    assert (analyzer.outputs_sparsity_max, analyzer.outputs_sparsity_min) == (0.75, 0.5)
    assert [sample.shape for sample in analyzer.outputs_sample] == [(2, 5), (2, 5)]
    together = torch.cat(analyzer.outputs_sample)
    assert torch.equal(analyzer.outputs_sample_mean, together.mean(0))
    assert torch.equal(analyzer.outputs_sample_std, together.std(0))
    assert torch.equal(analyzer.outputs_sample_max, together.max())
    assert analyzer.dim == 0


def test_by_two_dimensions(relu):
    analyzer = ModuleASAnalyzer(relu, dim=[1, 0], track_outputs_sparsity=True)
    relu(torch.tensor([[[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]]).movedim(0, -1))
    (measured,) = analyzer.outputs_sparsity
    assert measured.tolist() == [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    assert analyzer.outputs_sparsity_mean.tolist() == [0.0, 0.5, 1.0]
    assert analyzer.outputs_sparsity_max == 1.0


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


def test_the_first_of_several():
    layer = nn.Bilinear(2, 2, 1)
    analyzer = ModuleASAnalyzer(layer, track_inputs_sparsity=True)
    layer(torch.zeros(1, 2), torch.ones(1, 2))
    assert [value.item() for value in analyzer.inputs_sparsity] == [1.0]
    lstm = nn.LSTM(2, 3)
    analyzer = ModuleASAnalyzer(lstm, track_outputs_sparsity=True, outputs_sample_size=2)
    lstm(torch.ones(4, 1, 2))
    assert len(analyzer.outputs_sparsity) == len(analyzer.outputs_sample) == 1


def test_settings_may_be_changed(relu):
    analyzer = ModuleASAnalyzer(relu, inputs_sample_size=2)
    relu(X)
    analyzer.track_inputs_sparsity = analyzer.track_outputs_sparsity = True
    analyzer.inputs_sample_size, analyzer.outputs_sample_size = 0, 4
    relu(X)
    assert len(analyzer.inputs_sample) == len(analyzer.inputs_sparsity) == 1
    assert len(analyzer.outputs_sparsity) == 1 and analyzer.outputs_sample[0].shape == (4,)
    assert str(analyzer) == (
        "ModuleASAnalyzer(module=ReLU, dim=None, track_inputs_sparsity=True, "
        "track_outputs_sparsity=True, inputs_sample_size=0, outputs_sample_size=4, enabled=True)"
    )


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
    assert not analyzer.outputs_sample
    assert not relu._forward_hooks and not relu._forward_pre_hooks


def test_layers_by_name():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    found = ModuleASAnalyzer.analyze_layers(net, ["1", "0"], None, False, True, 0, 3, True)
    net(X)
    assert [analyzer.module for analyzer in found] == [net[1], net[0]]
    assert len(found[0].outputs_sparsity) == 1 and found[1].outputs_sample[0].shape == (3,)
    assert not found[0].inputs_sparsity and not found[0].inputs_sample
    (off,) = ModuleASAnalyzer.analyze_layers(net, ["1"], track_outputs_sparsity=True, enabled=False)
    net(X)
    assert not off.outputs_sparsity
    with pytest.raises(AttributeError, match="no layer '9'"):
        ModuleASAnalyzer.analyze_layers(net, ["9"])


def test_inputs_given_by_keyword_are_measured() -> None:
    layer = nn.Bilinear(2, 3, 4)
    analyzer = ModuleASAnalyzer(layer, track_inputs_sparsity=True)
    layer(input2=torch.ones(1, 3), input1=torch.tensor([[0.0, 1.0]]))
    assert analyzer.inputs_sparsity == [torch.tensor([0.5])]
