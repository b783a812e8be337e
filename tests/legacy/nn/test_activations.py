"""Activations by name, and squeeze-and-excitation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.nn import (
    Hardswish,
    ReLU,
    SqueezeExcite,
    Swish,
    create_activation,
    hard_swish,
    is_activation,
    replace_activation,
    replace_activations,
)

_X = torch.linspace(-4, 8, 13)
_FUNCTIONS = {
    "relu": nn.functional.relu,
    "ReLU6": nn.functional.relu6,
    "prelu": lambda x: nn.functional.prelu(x, torch.tensor(0.25)),
    "lrelu": nn.functional.leaky_relu,
    "swish": nn.functional.silu,
    "HardSwish": nn.functional.hardswish,
    "SiLU": nn.functional.silu,
}


@pytest.mark.parametrize("name", _FUNCTIONS)
def test_by_name(name) -> None:
    layer = create_activation(name, inplace=False, num_channels=1)
    assert torch.equal(layer(_X), _FUNCTIONS[name](_X))
    assert is_activation(layer)


def test_arguments_reach_the_layer() -> None:
    layer = create_activation("relu", True, 7)
    assert layer.inplace and layer.num_channels == 7
    assert create_activation("prelu", False, 7, init=0.5).weight.tolist() == [0.5] * 7
    assert create_activation("prelu", False, -1).weight.numel() == 1
    assert create_activation("lrelu", False, 1, negative_slope=0.5).negative_slope == 0.5
    values = _X.clone()
    assert hard_swish(values, inplace=True) is values
    assert torch.equal(Hardswish(3)(_X), values)


@pytest.mark.parametrize("name", ["rellu", "", None])
def test_other_names(name) -> None:
    with pytest.raises(ValueError, match="act_type must be 'relu'"):
        create_activation(name, False, 1)
    assert not is_activation(nn.Linear(1, 1))


def test_one_is_replaced() -> None:
    model = nn.Sequential(nn.Sequential(ReLU(num_channels=8)), nn.PReLU(3)).eval()
    new = replace_activation(model, "0.0", "prelu")
    assert model[0][0] is new and new.weight.numel() == 8 and not new.training
    assert replace_activation(model, "1", "relu", inplace=True).num_channels == 3
    assert replace_activation(model, "1", "relu", num_channels=5).num_channels == 5
    with pytest.raises(AttributeError, match="no layer '2'"):
        replace_activation(model, "2", "relu")


def test_all_are_replaced() -> None:
    shared = nn.SiLU()
    model = nn.Sequential(nn.Linear(2, 2), shared, nn.Sequential(nn.ReLU(), shared))
    assert replace_activations(model, "swish") is model
    assert isinstance(model[2][0], Swish) and model[1] is model[2][1]
    assert isinstance(model[1], Swish) and isinstance(model[0], nn.Linear)
    assert isinstance(replace_activations(nn.ReLU(), "silu"), nn.SiLU)


def test_squeeze_excite() -> None:
    torch.manual_seed(0)
    layer = SqueezeExcite(6, 2, act_type="swish")
    images = torch.randn(3, 6, 5, 4)
    found = layer(images)
    factors = found / images
    assert found.shape == images.shape
    assert torch.allclose(factors, factors[:, :, :1, :1].expand_as(images), atol=1e-5)
    assert factors.min() > 0 and factors.max() < 1
    assert sum(param.numel() for param in layer.parameters()) == 6 * 2 + 2 + 2 * 6 + 6
