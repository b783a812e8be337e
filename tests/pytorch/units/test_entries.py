from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.units.entries import keep_entries

KEEP = torch.tensor([True, False, True, True])


def _stepped(optimizer_type: Any, **kwargs: Any) -> tuple[nn.Linear, Any]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    optimizer = optimizer_type(layer.parameters(), **kwargs)
    for _ in range(2):
        optimizer.zero_grad()
        layer(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return layer, optimizer


@pytest.mark.parametrize(
    ("optimizer_type", "kwargs"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (torch.optim.Adam, {"lr": 0.1, "amsgrad": True}),
        (torch.optim.AdamW, {"lr": 0.1, "foreach": True}),
        (torch.optim.RMSprop, {"lr": 0.1, "centered": True, "momentum": 0.5}),
        (torch.optim.Adafactor, {"lr": 0.1}),
    ],
)
def test_a_step_after_shrinking_is_the_same_as_before(optimizer_type: Any, kwargs: Any) -> None:
    small, optimizer = _stepped(optimizer_type, **kwargs)
    whole, whole_optimizer = _stepped(optimizer_type, **kwargs)
    is_factored = optimizer_type is torch.optim.Adafactor
    shapes = {key: value.shape for key, value in optimizer.state[small.weight].items()}
    keep_entries(small.weight, {0: KEEP}, optimizer)
    keep_entries(small.bias, {0: KEEP}, optimizer)
    for key, shape in shapes.items():
        expected = (3, *shape[1:]) if len(shape) == 2 and shape[0] == 4 else shape
        assert optimizer.state[small.weight][key].shape == expected, key
    assert torch.equal(small.weight.grad, whole.weight.grad[KEEP])
    for layer, own in ((small, optimizer), (whole, whole_optimizer)):
        own.zero_grad()
        # a gradient in which the removed row has no part
        layer.weight.grad = torch.ones_like(layer.weight)
        layer.bias.grad = torch.ones_like(layer.bias)
        own.step()
    # Adafactor's step scales with the size of the whole tensor
    tolerance = 0.05 if is_factored else 1e-7
    assert torch.allclose(small.weight, whole.weight[KEEP], atol=tolerance)


def test_both_dimensions_and_buffers() -> None:
    weight = nn.Parameter(torch.arange(12.0).reshape(4, 3))
    keep_entries(weight, {0: KEEP, 1: torch.tensor([False, True, True])})
    assert weight.tolist() == [[1, 2], [7, 8], [10, 11]]
    buffer = torch.arange(4)
    keep_entries(buffer, {0: KEEP})
    assert buffer.tolist() == [0, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_training_goes_on_while_the_last_loss_is_alive(dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 4, dtype=dtype)
    seen = []
    layer.weight.register_post_accumulate_grad_hook(lambda param: seen.append(param.shape))
    loss = layer(torch.ones(2, 3, dtype=dtype)).sum()
    loss.backward()
    for param in layer.parameters():
        keep_entries(param, {0: KEEP})
    layer.zero_grad()
    layer(torch.ones(2, 3, dtype=dtype)).sum().backward()
    assert layer.weight.grad.shape == (3, 3)
    assert layer.weight.dtype == dtype
    assert seen == [(4, 3), (3, 3)]
    assert loss.requires_grad


def test_memory_format_and_frozen_parameters_stay() -> None:
    conv = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    conv.weight.requires_grad_(False)
    keep_entries(conv.weight, {1: KEEP})
    assert conv.weight.shape == (6, 3, 3, 3)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not conv.weight.requires_grad


def test_state_of_another_shape_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    layer, optimizer = _stepped(torch.optim.SGD, lr=0.1, momentum=0.9)
    optimizer.state[layer.weight]["sketch"] = torch.zeros(7)
    keep_entries(layer.weight, {0: KEEP}, optimizer)
    assert optimizer.state[layer.weight] == {}
    assert "'sketch' of shape (7,)" in caplog.text
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    assert optimizer.state[layer.weight]["momentum_buffer"].shape == (3, 3)
