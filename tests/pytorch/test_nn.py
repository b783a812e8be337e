from __future__ import annotations

import copy

import pytest
import torch

from sparseml.pytorch.nn import FATReLU, Identity, ReLU, ReLU6, Swish, fat_relu, swish

_X = torch.tensor([[-1.0, 0.2], [0.6, 7.0]])


def test_identity() -> None:
    layer = Identity()
    assert layer(_X) is _X
    assert layer(_X, mask=3) is _X
    assert layer(_X, 2) == (_X, 2)
    assert layer() == ()
    assert list(layer.parameters()) == []
    assert Identity(None, 3, in_features=5)(_X) is _X
    assert Identity(lambda x, scale=1: x * scale)(2, scale=3) == 6


def test_activations() -> None:
    assert torch.equal(ReLU(num_channels=2)(_X), _X.clamp(min=0))
    assert torch.equal(ReLU6(inplace=False)(_X), _X.clamp(0, 6))
    assert torch.allclose(Swish()(_X), _X * torch.sigmoid(_X))
    assert torch.allclose(swish(_X), Swish(num_channels=2)(_X))


def test_fat_relu() -> None:
    assert torch.equal(FATReLU()(_X), _X.clamp(min=0))
    assert fat_relu(_X, 0.5).tolist() == [[0.0, 0.0], [pytest.approx(0.6), 7.0]]
    per_channel = FATReLU([0.0, 8.0])
    assert per_channel(_X).tolist() == [[0.0, 0.0], [pytest.approx(0.6), 0.0]]
    image = torch.ones(1, 2, 3, 3)
    assert per_channel(image).sum(dim=(2, 3)).tolist() == [[9.0, 0.0]]
    assert list(per_channel.state_dict()) == ["threshold"]


def test_fat_relu_in_place_and_gradients() -> None:
    values = _X.clone()
    assert FATReLU(0.5, inplace=True)(values) is values
    x = _X.clone().requires_grad_()
    fat_relu(x, 0.5).sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert copy.deepcopy(FATReLU(0.5))(_X).tolist() == values.tolist()
