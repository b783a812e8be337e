from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.utils import thin_model_from_checkpoint


def _net(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden, affine=False),
        nn.Linear(hidden, 2),
    )


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_thinned_checkpoint_loads_and_runs(prefix: str) -> None:
    torch.manual_seed(0)
    small, big = _net(4, 5).eval(), _net(8, 6).eval()
    state = {f"{prefix}{name}": value for name, value in small.state_dict().items()}
    kept = big[0].weight
    thin_model_from_checkpoint(big, state)
    big.load_state_dict(small.state_dict())
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(big(x), small(x))
    assert big[0].weight is kept
    assert str(big) == str(small)


def test_sizes_are_set() -> None:
    big = _net(8, 6)
    thin_model_from_checkpoint(big, _net(4, 5).state_dict())
    assert (big[0].in_channels, big[0].out_channels) == (3, 4)
    assert (big[2].in_channels, big[2].out_channels, big[2].groups) == (4, 4, 4)
    assert (big[5].in_features, big[5].out_features) == (4, 5)
    assert (big[1].num_features, big[6].num_features) == (4, 5)


def test_grouped_and_transposed_convolutions() -> None:
    grouped = nn.Conv2d(8, 12, 1, groups=4)
    thin_model_from_checkpoint(grouped, nn.Conv2d(6, 9, 1, groups=3).state_dict())
    assert (grouped.in_channels, grouped.out_channels, grouped.groups) == (6, 9, 3)
    assert grouped(torch.zeros(1, 6, 2, 2)).shape == (1, 9, 2, 2)
    transposed = nn.ConvTranspose2d(6, 8, 1)
    thin_model_from_checkpoint(transposed, nn.ConvTranspose2d(4, 5, 1).state_dict())
    assert (transposed.in_channels, transposed.out_channels) == (4, 5)
    assert transposed(torch.zeros(1, 4, 2, 2)).shape == (1, 5, 2, 2)


def test_leading_entries_stay_and_gradients_go() -> None:
    layer = nn.Linear(4, 4)
    layer(torch.ones(1, 4)).sum().backward()
    before = layer.weight.detach().clone()
    thin_model_from_checkpoint(layer, {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
    assert torch.equal(layer.weight, before[:2, :3])
    assert layer.weight.grad is None
    assert layer.weight.requires_grad


def test_equal_larger_and_unknown_shapes_change_nothing() -> None:
    layer = nn.Linear(3, 3)
    before = layer.weight
    for shape in ((3, 3), (4, 3), (2, 4), (3,), (3, 3, 1)):
        thin_model_from_checkpoint(layer, {"weight": torch.zeros(shape), "other": torch.zeros(1)})
        assert layer.weight is before
        assert layer.weight.shape == (3, 3)


def test_tied_and_half_and_meta_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    model.half()
    state = {"0.weight": torch.zeros(3, 3), "1.weight": torch.zeros(3, 3)}
    thin_model_from_checkpoint(model, state)
    assert model[1].weight is model[0].weight
    assert model[0].weight.dtype == torch.float16
    assert [layer.out_features for layer in model] == [3, 3]
    meta = nn.Linear(4, 4, device="meta")
    thin_model_from_checkpoint(meta, {"weight": torch.zeros(2, 2)})
    assert meta.weight.shape == (2, 2)


def test_embeddings_lose_width_but_no_words() -> None:
    for words, expected in ((5, (5, 3)), (4, (5, 4))):
        embedding = nn.Embedding(5, 4)
        thin_model_from_checkpoint(embedding, nn.Embedding(words, 3).state_dict())
        assert embedding.weight.shape == expected
        assert (embedding.num_embeddings, embedding.embedding_dim) == expected
