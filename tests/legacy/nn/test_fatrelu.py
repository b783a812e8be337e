"""ReLU with a threshold, and models whose ReLUs get one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sparseml.pytorch.nn import (
    FATReLU,
    convert_relus_to_fat,
    fat_exp_relu,
    fat_pw_relu,
    fat_relu,
    fat_sig_relu,
    set_relu_to_fat,
)

_X = torch.tensor([[-1.0, 0.5, 0.9, 1.0, 7.0]])


def test_piecewise_linear() -> None:
    # t = 1, c = 2: 0 up to 0.5, then 2 * (x - 0.5), x from 1 on
    assert fat_pw_relu(_X, 1.0, 2.0)[0].tolist() == pytest.approx([0.0, 0.0, 0.8, 1.0, 7.0])
    values = _X.clone()
    assert fat_pw_relu(values, 1.0, 2.0, inplace=True) is values
    assert values[0, 2].item() == pytest.approx(0.8)


def test_smooth_forms() -> None:
    expected = [x / (1 + math.exp(3.0 * (1.0 - x))) for x in _X[0].tolist()]
    assert fat_sig_relu(_X, 1.0, 3.0)[0].tolist() == pytest.approx(expected)
    expected = [0.0, 0.5 * math.exp(-1.5), 0.9 * math.exp(-0.3), 1.0, 7.0]
    assert fat_exp_relu(_X, 1.0, 3.0)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("function", [fat_pw_relu, fat_sig_relu, fat_exp_relu])
def test_a_threshold_per_channel(function) -> None:
    image = torch.full((1, 2, 2, 2), 1.0)
    found = function(image, torch.tensor([0.5, 2.0]), torch.tensor([50.0, 50.0]))
    assert found[0, 0].sum().item() == pytest.approx(4.0)
    assert found[0, 1].sum().item() == pytest.approx(0.0, abs=1e-6)


def test_large_inputs_have_finite_gradients() -> None:
    x = torch.tensor([1e4], requires_grad=True)
    fat_exp_relu(x, 1.0, 100.0).sum().backward()
    assert x.grad.item() == 1.0


class TestFATReLU:
    def test_one_threshold(self) -> None:
        layer = FATReLU(0.6)
        assert not layer.dynamic and not layer.channel_wise and layer.num_channels == -1
        layer.set_threshold(0.95)
        assert layer.get_threshold() == pytest.approx(0.95)
        assert layer(_X)[0].tolist() == [0.0, 0.0, 0.0, 1.0, 7.0]
        with pytest.raises(ValueError, match="a single threshold, found 2"):
            layer.set_threshold([1.0, 2.0])

    def test_one_per_channel(self) -> None:
        layer = FATReLU([0.0] * 5)
        assert layer.channel_wise and layer.num_channels == 5 and not layer.dynamic
        layer.set_threshold([8.0, 0.0, 8.0, 0.0, 8.0])
        assert layer.get_threshold() == [8.0, 0.0, 8.0, 0.0, 8.0]
        assert layer(_X)[0].tolist() == [0.0, 0.5, 0.0, 1.0, 0.0]
        layer.set_threshold(2.0)
        assert layer.get_threshold() == [2.0] * 5
        with pytest.raises(ValueError, match="5 thresholds, found 2"):
            layer.set_threshold([1.0, 2.0])
        with pytest.raises(ValueError, match=r"input of shape .* has 3 channels"):
            layer(torch.ones(1, 3))

    def test_the_first_input_decides(self) -> None:
        layer = FATReLU([])
        assert layer.dynamic and layer.channel_wise and layer.num_channels == 0
        layer(torch.ones(2, 3, 4, 4))
        assert layer.dynamic and layer.num_channels == 3
        layer.set_threshold([1.0, 2.0, 3.0])
        again = FATReLU([])
        again.load_state_dict(layer.state_dict())
        assert again.get_threshold() == [1.0, 2.0, 3.0]


class TestReplacing:
    def test_all(self) -> None:
        shared = nn.ReLU()
        model = nn.Sequential(nn.ReLU6(), nn.Sequential(nn.Linear(2, 2), shared), shared).eval()
        found = convert_relus_to_fat(model, threshold=0.25, inplace=True)
        assert list(found) == ["0", "1.1", "2"]
        assert found["1.1"] is found["2"] is model[2] is model[1][1]
        assert all(isinstance(fat, FATReLU) and fat.inplace for fat in found.values())
        assert model[0].get_threshold() == 0.25 and not model[0].training
        assert convert_relus_to_fat(model) == {}

    def test_one(self) -> None:
        model = nn.Sequential(nn.Sequential(nn.ReLU()))
        assert set_relu_to_fat(model, "0.0", threshold=[0.5]) is model[0][0]
        with pytest.raises(AttributeError, match=r"no layer '0\.1'"):
            set_relu_to_fat(model, "0.1")

    def test_threshold_zero_is_relu(self) -> None:
        assert torch.equal(fat_relu(_X), _X.clamp(min=0))
