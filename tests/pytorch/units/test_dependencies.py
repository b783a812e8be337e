from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from sparseml.pytorch.units import (
    DependencyGroups,
    compress_strucure_pruned_module,
    dependency_groups,
)

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _trained_looking(model: nn.Module) -> nn.Module:
    """Fresh normalisation layers do nothing, which would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                tensor.data.uniform_(0.3, 1.2, generator=generator)
    return model.eval()


def _prune_third(model: nn.Module, found: DependencyGroups) -> None:
    dim = 0 if found.structure_type == "filter" else 1
    with torch.no_grad():
        for group, names in zip(found.groups, found.param_groups, strict=True):
            for name in names:
                param = model.get_parameter(name)
                slices = param.transpose(0, min(dim, param.ndim - 1))
                dead = torch.arange(group.size) % 3 == 0
                slices[dead.repeat_interleave(slices.shape[0] // group.size)] = 0


@pytest.mark.parametrize("structure_type", ["filter", "channel"])
@pytest.mark.parametrize(
    ("name", "groups"),
    [("resnet10t", 10), ("resnet18", 12), ("mobilenetv2_050", 25), ("mobilenetv3_small_050", 26)],
)
def test_image_models_shrink_without_a_change(name: str, groups: int, structure_type: str) -> None:
    model = _trained_looking(timm.create_model(name, num_classes=10))
    found = dependency_groups(model, X, structure_type)
    assert len(found.groups) == groups
    assert list(found.skipped) == [model.default_cfg["classifier"]]
    _prune_third(model, found)
    before, size = model(X), sum(param.numel() for param in model.parameters())
    compress_strucure_pruned_module(model, found.param_group_dependency_map, structure_type)
    assert torch.allclose(model(X), before, atol=1e-4)
    assert sum(param.numel() for param in model.parameters()) < 0.6 * size


def test_groups_of_a_small_residual_network() -> None:
    found = dependency_groups(timm.create_model("resnet10t", num_classes=4), X)
    group = next(group for group in found.groups if group.name == "layer2.0.downsample.1")
    assert group.size == 128
    assert group.makers == (
        "layer2.0.conv2.weight",
        "layer2.0.bn2.weight",
        "layer2.0.bn2.bias",
        "layer2.0.downsample.1.weight",
        "layer2.0.downsample.2.weight",
        "layer2.0.downsample.2.bias",
    )
    assert group.readers == ("layer3.0.conv1.weight", "layer3.0.downsample.1.weight")
    assert found.param_group_dependency_map[",".join(group.makers)] == list(group.readers)
    assert list(group.makers) in found.param_groups
    assert set(found.params) >= set(group.makers)


class Mixed(nn.Module):
    """Channels that can be thinned beside some that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 4, 1)
        self.scale = nn.Parameter(torch.ones(4))
        self.prelu = nn.PReLU(4)
        self.gate = nn.Conv2d(4, 4, 1)
        self.joined = nn.Conv2d(4, 4, 1)
        self.normed = nn.Conv2d(8, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.fixed = nn.Conv2d(4, 4, 1)
        self.flat = nn.Linear(4 * 9, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.plain(x)) * self.scale[:, None, None]
        x = self.gate(x).sigmoid()
        x = self.normed(torch.cat([self.joined(x), self.joined(x)], 1))
        x = self.fixed(self.norm(x)).relu()
        x = self.flat(x.reshape(-1, 4, 9).flatten(1))
        return self.head(x.relu())


def test_what_cannot_be_thinned_is_left_out_and_says_why() -> None:
    model, x = Mixed(), torch.randn(2, 3, 3, 3)
    found = dependency_groups(model, x)
    reasons = found.skipped
    assert "no layer reads" in reasons["head"]
    assert "removal changes the outputs" in reasons["gate"]
    assert "split, or joined" in reasons["joined"]
    assert "GroupNorm acts" in reasons["normed"]
    assert "removal breaks the model" in reasons["fixed"]
    assert [group.name for group in found.groups] == ["plain", "flat"]
    assert found.groups[0].scales == ("scale", "prelu.weight")
    # a channel that nobody reads may hold anything
    by_channel = dependency_groups(model, x, "channel")
    assert [group.name for group in by_channel.groups] == ["plain", "gate", "flat"]


def test_a_convolution_that_is_flattened() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 6), nn.ReLU(), nn.Linear(6, 2)
    )
    x = torch.randn(2, 3, 4, 4)
    found = dependency_groups(model, x)
    assert found.param_group_dependency_map == {
        "0.weight,0.bias": ["3.weight"],
        "3.weight,3.bias": ["5.weight"],
    }
    _prune_third(model, found)
    before = model(x)
    compress_strucure_pruned_module(model, found.param_group_dependency_map)
    assert model[3].weight.shape == (4, 8)
    assert torch.allclose(model(x), before, atol=1e-6)


@pytest.mark.parametrize("as_inputs", [lambda x: x, lambda x: (x,), lambda x: {"x": x}])
def test_the_model_stays_as_it_is(as_inputs: Any) -> None:
    model = Mixed().train()
    model.plain.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        found = dependency_groups(nn.DataParallel(model), as_inputs(torch.randn(2, 3, 3, 3)))
    assert "plain.weight" in found.params
    assert model.training
    assert not model.plain.weight.requires_grad
    assert model.gate.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(param.grad is None for param in model.parameters())


class Reader(nn.Module):
    """Columns of images, read one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.memory, self.head = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.second(self.first(x)).mean(2).mT
        return self.head(self.memory(columns)[0][:, -1])


def test_what_the_library_cannot_follow_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dependency_groups(Reader().eval(), torch.randn(2, 1, 4, 5))
    assert [group.name for group in found.groups] == ["first"]
    assert found.skipped["second"].startswith("torch-pruning cannot follow them (IndexError: ")
    with pytest.raises(RuntimeError, match=r"expected input.* to have 1 channels"):
        dependency_groups(Reader().eval(), torch.randn(2, 3, 4, 5))
    monkeypatch.setattr("torch_pruning.DependencyGraph.build_dependency", lambda *_, **__: 1 / 0)
    found = dependency_groups(Reader().eval(), torch.randn(2, 1, 4, 5))
    assert not found.groups and "(ZeroDivisionError: " in found.skipped["channels"]


def test_bad_structure_type() -> None:
    with pytest.raises(ValueError, match="structure_type must be 'filter' or 'channel'"):
        dependency_groups(Mixed(), X, "block")


def test_torch_pruning_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=r"sparseml-next\[structured\]"):
        dependency_groups(Mixed(), torch.randn(2, 3, 3, 3))
