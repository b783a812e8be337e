from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparseml.pytorch.utils.layer_kinds import (
    INPUTS,
    OUTPUTS,
    axis_size,
    from_out_in,
    size_attributes,
    tensor_axes,
    to_out_in,
)

TRANSPOSED: dict[int, Callable[..., nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 3),
    sides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    batch=st.lists(st.integers(1, 2), max_size=2),
)
def test_transposed_convolutions(
    groups: int, sides: tuple[int, int], kernel: list[int], batch: list[int]
) -> None:
    inputs, outputs = (side * groups for side in sides)
    layer = TRANSPOSED[len(kernel)](inputs, outputs, tuple(kernel), groups=groups, bias=False)
    turned = to_out_in(layer, "weight", layer.weight)
    assert turned.shape == (outputs, inputs // groups, *kernel)
    assert torch.equal(from_out_in(layer, "weight", turned), layer.weight)
    # a plain convolution with the turned weight connects the same channels
    x = torch.randn(2, inputs, *(2 for _ in kernel))
    padding = tuple(size - 1 for size in kernel)
    flipped = turned.flip([dim + 2 for dim in range(len(kernel))])
    same = CONVOLVE[len(kernel)](x, flipped, padding=padding, groups=groups)
    assert torch.allclose(layer(x), same, atol=1e-5)

    samples = torch.randn(*batch, *layer.weight.shape)
    many = to_out_in(layer, "weight", samples, batch_dims=len(batch))
    assert torch.equal(from_out_in(layer, "weight", many, batch_dims=len(batch)), samples)
    for place in itertools.product(*(range(size) for size in batch)):
        assert torch.equal(many[place], to_out_in(layer, "weight", samples[place]))


def test_linear_with_swapped_weight() -> None:
    layer = Conv1D(4, 3)
    mask = layer.weight > 0
    assert torch.equal(to_out_in(layer, "weight", mask), mask.T)
    assert torch.equal(from_out_in(layer, "weight", mask.T), mask)
    assert to_out_in(layer, "bias", layer.bias) is layer.bias
    plain = nn.Linear(3, 4)
    plain.weight.data = to_out_in(layer, "weight", layer.weight.detach())
    plain.bias.data = layer.bias.detach()
    x = torch.randn(2, 3)
    assert torch.allclose(plain(x), layer(x))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(3, 4),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Embedding(5, 4),
        nn.BatchNorm2d(3),
        nn.GRU(3, 4),
        nn.MultiheadAttention(4, 2),
    ],
)
def test_other_layers_stay_as_they_are(layer: nn.Module) -> None:
    for name, param in layer.named_parameters(recurse=False):
        assert to_out_in(layer, name, param) is param
        assert from_out_in(layer, name, param) is param


@pytest.mark.parametrize(
    ("layer", "sizes"),
    [
        (nn.Linear(3, 4), {"in_features": 3, "out_features": 4}),
        (nn.Conv2d(4, 6, 3, groups=2), {"in_channels": 4, "out_channels": 6}),
        (nn.ConvTranspose1d(4, 6, 3, groups=2), {"in_channels": 4, "out_channels": 6}),
        (Conv1D(4, 3), {"nf": 4, "nx": 3}),
        (nn.Embedding(5, 4), {"embedding_dim": 4, "num_embeddings": 5}),
        (nn.BatchNorm1d(3, affine=False), {"num_features": 3}),
        (nn.BatchNorm1d(3, affine=False, track_running_stats=False), {}),
        (nn.LayerNorm(3), {}),
        (nn.PReLU(3), {"num_parameters": 3}),
        (nn.PReLU(), {}),
        (nn.GRU(3, 4), {}),
    ],
)
def test_sizes(layer: nn.Module, sizes: dict[str, int]) -> None:
    assert size_attributes(layer) == sizes


def test_axes() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2)
    assert tensor_axes(layer) == {"weight": (INPUTS, OUTPUTS), "bias": (OUTPUTS,)}
    assert (axis_size(layer, INPUTS), axis_size(layer, OUTPUTS)) == (4, 6)
    assert tensor_axes(nn.Linear(3, 4, bias=False)) == {"weight": (OUTPUTS, INPUTS)}
    assert tensor_axes(nn.GRU(3, 4)) == {}
