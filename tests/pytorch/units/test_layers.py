from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparseml.pytorch.units import shrink_layer

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 8), ()),
    "linear without bias": (lambda: nn.Linear(6, 8, bias=False), ()),
    "conv1d": (lambda: nn.Conv1d(6, 8, 3, padding=1), (5,)),
    "conv2d": (lambda: nn.Conv2d(6, 8, 3, padding=1), (4, 5)),
    "conv3d": (lambda: nn.Conv3d(6, 8, 1), (2, 3, 2)),
    "transposed": (lambda: nn.ConvTranspose2d(6, 8, 2, stride=2), (3, 3)),
}


def _randomised(layer: nn.Module) -> nn.Module:
    for tensor in [*layer.parameters(), *layer.buffers()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor.data, 0.5, 1.5)
    return layer.double().eval()


def _masks(size: int) -> st.SearchStrategy[list[bool]]:
    return st.lists(st.booleans(), min_size=size, max_size=size).filter(any)


@pytest.mark.parametrize("kind", list(LAYERS))
@settings(max_examples=15, deadline=None)
@given(inputs=_masks(6), outputs=_masks(8))
def test_what_stays_computes_the_same(kind: str, inputs: list[bool], outputs: list[bool]) -> None:
    make, rest = LAYERS[kind]
    layer = _randomised(make())
    keep_in, keep_out = torch.tensor(inputs), torch.tensor(outputs)
    x = torch.randn(2, 6, *rest, dtype=torch.float64)
    x[:, ~keep_in] = 0
    expected = layer(x)[:, keep_out]
    shrink_layer(layer, keep_out, keep_in)
    assert torch.allclose(layer(x[:, keep_in]), expected)
    sizes = (sum(inputs), sum(outputs))
    if isinstance(layer, nn.Linear):
        assert (layer.in_features, layer.out_features) == sizes
    else:
        assert (layer.in_channels, layer.out_channels) == sizes


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm2d(6),
        lambda: nn.BatchNorm2d(6, affine=False),
        lambda: nn.BatchNorm2d(6, track_running_stats=False),
        lambda: nn.InstanceNorm2d(6, affine=True),
        lambda: nn.PReLU(6),
    ],
)
def test_layers_that_act_on_each_channel(make: Callable[[], nn.Module]) -> None:
    layer = _randomised(make())
    x = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    keep = torch.tensor([0, 2, 5])
    expected = layer(x)[:, keep]
    shrink_layer(layer, outputs=keep)
    assert torch.allclose(layer(x[:, keep]), expected)
    assert getattr(layer, "num_features", getattr(layer, "num_parameters", None)) == 3


def test_layer_norm_and_embedding_lose_their_width() -> None:
    keep = torch.tensor([1, 2])
    norm = nn.LayerNorm(4)
    shrink_layer(norm, outputs=keep)
    assert norm(torch.randn(2, 2)).shape == (2, 2)
    assert norm.normalized_shape == (2,)
    embedding = nn.Embedding(5, 4)
    expected = embedding(torch.tensor([3]))[:, keep]
    shrink_layer(embedding, outputs=keep)
    assert torch.equal(embedding(torch.tensor([3])), expected)
    assert (embedding.num_embeddings, embedding.embedding_dim) == (5, 2)


def test_linear_with_swapped_weight() -> None:
    layer = Conv1D(4, 3)
    expected = layer(torch.tensor([[1.0, 0.0, 1.0]]))[:, 2:]
    shrink_layer(layer, outputs=torch.tensor([2, 3]), inputs=torch.tensor([0, 2]))
    assert torch.allclose(layer(torch.ones(1, 2)), expected)
    assert (layer.nf, layer.nx) == (2, 2)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution_follows_from_either_side(multiplier: int) -> None:
    keep = torch.tensor([True, False, True, True])
    wide = keep.repeat_interleave(multiplier)
    x = torch.randn(1, 4, 3, 3)
    for sides in ({"inputs": keep}, {"outputs": wide}, {"inputs": keep, "outputs": wide}):
        conv = nn.Conv2d(4, 4 * multiplier, 3, padding=1, groups=4)
        expected = conv(x)[:, wide]
        shrink_layer(conv, **sides)
        assert torch.allclose(conv(x[:, keep]), expected, atol=1e-6)
        assert (conv.in_channels, conv.out_channels, conv.groups) == (3, 3 * multiplier, 3)


def test_grouped_convolution_loses_groups_or_the_same_in_each() -> None:
    x = torch.randn(1, 8, 2, 2)
    conv = nn.Conv2d(8, 4, 1, groups=2)
    half = torch.arange(8) < 4
    expected = conv(x)[:, :2]
    shrink_layer(conv, inputs=half)
    assert torch.allclose(conv(x[:, half]), expected)
    assert (conv.groups, conv.in_channels, conv.out_channels) == (1, 4, 2)

    conv = nn.Conv2d(8, 4, 1, groups=2)
    alike = torch.tensor([True, False, True, True] * 2)
    outputs = torch.tensor([True, False, False, True])
    x[:, ~alike] = 0
    expected = conv(x)[:, outputs]
    shrink_layer(conv, outputs, alike)
    assert torch.allclose(conv(x[:, alike]), expected, atol=1e-6)
    assert (conv.groups, conv.in_channels, conv.out_channels) == (2, 6, 2)


@pytest.mark.parametrize(
    ("outputs", "inputs", "message"),
    [
        (None, [0, 1, 2, 3, 4], "different from each other"),
        ([0], [0, 1, 4, 5], "inputs of other groups"),
        ([0, 1, 2], None, "different from each other"),
    ],
)
def test_groups_must_stay_alike(
    outputs: list[int] | None, inputs: list[int] | None, message: str
) -> None:
    conv = nn.Conv2d(8, 4, 1, groups=2)
    kept = [None if side is None else torch.tensor(side) for side in (outputs, inputs)]
    with pytest.raises(ValueError, match=message):
        shrink_layer(conv, *kept)
    assert conv.weight.shape == (4, 4, 1, 1)
    assert conv.groups == 2


def test_masks_must_fit() -> None:
    with pytest.raises(ValueError, match=r"Linear has 3 inputs, the mask has shape \(2,\)"):
        shrink_layer(nn.Linear(3, 4), inputs=torch.tensor([True, False]))
    with pytest.raises(ValueError, match="a BatchNorm1d has no inputs"):
        shrink_layer(nn.BatchNorm1d(3), inputs=torch.tensor([0]))
    with pytest.raises(ValueError, match="a GRU has no outputs"):
        shrink_layer(nn.GRU(3, 3), outputs=torch.tensor([0]))
