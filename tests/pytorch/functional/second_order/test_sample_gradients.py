from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparseml.pytorch.functional.second_order.sample_gradients import (
    conv2d_sample_gradients,
    linear_sample_gradients,
)


def _one_by_one(layer, inputs, output_grads):
    grads = []
    for x, g in zip(inputs, output_grads, strict=True):
        layer.zero_grad()
        (layer(x.unsqueeze(0)) * g).sum().backward()
        grads.append(layer.weight.grad.clone())
    return torch.stack(grads)


@pytest.mark.parametrize("positions", [(), (5,), (2, 3)])
def test_linear(positions):
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    inputs, grads = torch.randn(3, *positions, 6), torch.randn(3, *positions, 4)
    expected = _one_by_one(layer, inputs, grads)
    torch.testing.assert_close(linear_sample_gradients(inputs, grads), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (3, 3)},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
        {"kernel_size": (1, 1), "groups": 2},
        {"kernel_size": (3, 3), "padding": (1, 1), "groups": 4},
    ],
)
def test_conv2d(options):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, **options)
    inputs = torch.randn(3, 4, 7, 8)
    grads = torch.randn_like(layer(inputs))
    expected = _one_by_one(layer, inputs, grads)
    torch.testing.assert_close(
        conv2d_sample_gradients(inputs, grads, **options), expected, rtol=1e-4, atol=1e-5
    )


def test_the_mean_over_samples_is_the_batch_gradient():
    torch.manual_seed(0)
    layer, inputs, target = nn.Linear(5, 3), torch.randn(8, 5), torch.randint(3, (8,))
    outputs = layer(inputs)
    outputs.retain_grad()
    F.cross_entropy(outputs, target).backward()
    grads = linear_sample_gradients(inputs, outputs.grad * 8)
    torch.testing.assert_close(grads.mean(0), layer.weight.grad)


def test_wrong_shapes():
    with pytest.raises(ValueError, match="agree"):
        linear_sample_gradients(torch.zeros(3, 2), torch.zeros(4, 2))
