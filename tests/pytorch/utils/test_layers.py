from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from sparseml.pytorch.utils import (
    get_conv_layers,
    get_dependency_order,
    get_layer,
    get_layer_param,
    get_linear_layers,
    get_prunable_layers,
    get_quantizable_layers,
    get_terminal_layers,
    swap_modules,
)


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.body = nn.Sequential(nn.Conv1d(2, 2, 1), nn.ReLU(), nn.ConvTranspose2d(2, 2, 1))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embed(x)))


def test_get_layer() -> None:
    net = _Net()
    assert get_layer("body.0", net) is net.body[0]
    assert get_layer("", net) is net
    assert get_layer("head", net) is net.head


def test_get_layer_looks_through_wrappers() -> None:
    net = _Net()
    head, conv = net.head, net.body[0]
    net.body = torch.compile(net.body)
    wrapped = nn.DataParallel(torch.compile(net))
    assert get_layer("head", wrapped) is head
    assert get_layer("body.0", wrapped) is conv
    assert get_layer("module._orig_mod.body._orig_mod.0", wrapped) is conv
    assert get_layer("module.head", net) is head


def test_get_layer_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no layer 'bodi\.0'.*body\.0"):
        get_layer("bodi.0", _Net())
    with pytest.raises(AttributeError, match="has no layers"):
        get_layer("a", nn.Linear(1, 1))


def test_get_layer_param() -> None:
    net = _Net()
    assert get_layer_param("weight", "head", net) is net.head.weight
    assert get_layer_param("weight", "head", nn.DataParallel(net)) is net.head.weight
    bare = nn.DataParallel(nn.Linear(1, 1))
    assert get_layer_param("bias", "", bare) is bare.module.bias
    with pytest.raises(AttributeError, match=r"'head' .*'gamma'; it has weight, bias"):
        get_layer_param("gamma", "head", net)


def test_layers_by_kind() -> None:
    net = _Net()
    names = ["embed", "body.0", "body.1", "body.2", "norm", "head"]
    assert list(get_terminal_layers(net)) == names
    assert list(get_conv_layers(net)) == ["body.0", "body.2"]
    assert list(get_linear_layers(net)) == ["head"]
    assert [name for name, _ in get_prunable_layers(net)] == ["embed", "body.0", "body.2", "head"]
    assert [name for name, _ in get_quantizable_layers(net)] == ["embed", "head"]


def test_kinds_of_wrapped_bare_and_empty_modules() -> None:
    layer = nn.Linear(1, 1)
    assert get_prunable_layers(layer) == [("", layer)]
    assert get_prunable_layers(nn.DataParallel(layer)) == [("", layer)]
    assert get_prunable_layers(nn.Sequential()) == []
    assert get_terminal_layers(nn.ReLU()) == {}
    shared = nn.Sequential(layer, layer)
    assert get_prunable_layers(shared) == [("0", layer)]


def test_subclasses_and_meta_device_are_prunable() -> None:
    attention = nn.MultiheadAttention(4, 2, device="meta")
    assert [name for name, _ in get_prunable_layers(attention)] == ["out_proj"]


def test_hugging_face_conv1d_is_prunable_when_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Conv1D(nn.Module):
        pass

    fake = ModuleType("transformers.pytorch_utils")
    fake.Conv1D = Conv1D  # type: ignore[attr-defined]
    model = nn.Sequential(Conv1D())
    monkeypatch.delitem(sys.modules, fake.__name__, raising=False)
    assert get_prunable_layers(model) == []
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    assert get_prunable_layers(model) == [("0", model[0])]


def test_swap_modules_and_back() -> None:
    net = _Net()
    conv, new = net.body[0], nn.Identity()
    assert swap_modules(net, "body.0", new) is conv
    assert net.body[0] is new
    assert swap_modules(net, "body.0", conv) is new
    assert net.body[0] is conv


def test_swap_modules_inside_wrappers() -> None:
    net = _Net()
    head = net.head
    wrapped = nn.DataParallel(torch.compile(net))
    assert swap_modules(wrapped, "head", nn.Identity()) is head
    assert isinstance(net.head, nn.Identity)


def test_swap_modules_refuses_the_root_and_unknown_names() -> None:
    with pytest.raises(ValueError, match="submodule_name"):
        swap_modules(_Net(), "", nn.Identity())
    with pytest.raises(AttributeError, match="no layer 'heed'"):
        swap_modules(_Net(), "heed", nn.Identity())


def test_dependency_order() -> None:
    net = _Net()
    order = get_dependency_order(net, ["head", "body", "embed", "norm"], torch.tensor([[1]]))
    assert order == ["embed", "norm", "head"]  # body never runs
    assert not net.head._forward_pre_hooks and net.training
    norm = nn.Sequential(nn.BatchNorm1d(3))
    get_dependency_order(norm, ["0"], torch.ones(2, 3))
    assert norm[0].num_batches_tracked == 0
