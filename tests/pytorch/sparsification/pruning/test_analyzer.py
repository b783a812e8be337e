from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.sparsification.pruning import ModulePruningAnalyzer


def test_sparsity_of_a_parameter(linear_net):
    linear_net[0].weight.data[:4] = 0.0
    analyzer = ModulePruningAnalyzer(linear_net[0], "0")
    assert (analyzer.name, analyzer.param_name, analyzer.tag) == ("0", "weight", "0.weight")
    assert analyzer.module is linear_net[0]
    assert analyzer.param is linear_net[0].weight
    assert analyzer.param_sparsity.item() == 0.25
    assert analyzer.param_sparsity_dim(0).tolist() == [1.0] * 4 + [0.0] * 12
    assert analyzer.param_sparsity_dim().item() == 0.25


def test_it_looks_at_the_present_parameter(linear_net):
    analyzer = ModulePruningAnalyzer(linear_net[2], "2", "bias")
    linear_net[2].bias = nn.Parameter(torch.zeros(4))
    assert analyzer.param_sparsity.item() == 1.0


def test_several_layers_at_once(linear_net):
    analyzers = ModulePruningAnalyzer.analyze_layers(linear_net, ["0", "2"], "bias")
    assert [analyzer.tag for analyzer in analyzers] == ["0.bias", "2.bias"]
    with pytest.raises(AttributeError, match="no layer '7'"):
        ModulePruningAnalyzer.analyze_layers(linear_net, ["7"])


def test_a_layer_without_the_parameter_is_refused(linear_net):
    with pytest.raises(
        RuntimeError, match=r"ReLU has no parameter 'weight', wanted for '1\.weight'"
    ):
        ModulePruningAnalyzer(linear_net[1], "1")
