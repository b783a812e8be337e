from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparseml.pytorch.units import compress_strucure_pruned_module


class ConvNet(nn.Module):
    """A stem, a depthwise convolution, a residual block and a flattened linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.branch = nn.Conv2d(6, 6, 1)
        self.fc = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = self.depthwise(x)
        return self.fc((x + self.branch(x)).relu().flatten(1))


FILTER_GROUP = [
    "stem.weight",
    "stem.bias",
    "norm.weight",
    "norm.bias",
    "depthwise.weight",
    "depthwise.bias",
    "branch.weight",
    "branch.bias",
]
FILTER_MAP = {", ".join(FILTER_GROUP): ["branch.weight", "fc.weight"]}
CHANNEL_MAP = {"branch.weight,fc.weight": FILTER_GROUP}


def _net(seed: int = 0) -> ConvNet:
    torch.manual_seed(seed)
    net = ConvNet().double().eval()
    for tensor in net.norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return net


def _prune(net: nn.Module, names: list[str], dim: int, units: list[int], size: int = 6) -> None:
    with torch.no_grad():
        for name in names:
            param = net.get_parameter(name)
            param = param.transpose(0, min(dim, param.ndim - 1))
            for unit in units:
                repeats = param.shape[0] // size
                param[unit * repeats : (unit + 1) * repeats] = 0


def _sizes(net: ConvNet) -> tuple[int, ...]:
    return (
        net.stem.out_channels,
        net.norm.num_features,
        net.depthwise.groups,
        net.depthwise.in_channels,
        net.branch.in_channels,
        net.branch.out_channels,
        net.fc.in_features,
    )


X = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
UNITS = st.lists(st.integers(0, 5), unique=True, max_size=5)


@settings(max_examples=25, deadline=None)
@given(units=UNITS)
def test_pruned_filters_go_and_the_outputs_stay(units: list[int]) -> None:
    net = _net()
    _prune(net, FILTER_GROUP, 0, units)
    before, entries = net(X), sum(t.numel() for t in net.state_dict().values())
    removed = compress_strucure_pruned_module(net, FILTER_MAP)
    assert torch.allclose(net(X), before)
    left = 6 - len(units)
    assert _sizes(net) == (left,) * 6 + (left * 4,)
    assert removed == entries - sum(t.numel() for t in net.state_dict().values())
    assert net.norm.running_var.shape == (left,)


@settings(max_examples=25, deadline=None)
@given(units=UNITS)
def test_pruned_channels_go_and_the_outputs_stay(units: list[int]) -> None:
    net = _net()
    _prune(net, ["branch.weight", "fc.weight"], 1, units)
    before = net(X)
    compress_strucure_pruned_module(net, CHANNEL_MAP, structure_type="channel")
    assert torch.allclose(net(X), before)
    left = 6 - len(units)
    assert _sizes(net) == (left,) * 6 + (left * 4,)


def test_what_belongs_to_a_layer_follows_unnamed() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)).eval()
    _prune(net, ["0.weight"], 0, [1, 3], size=4)
    compress_strucure_pruned_module(net, {"0.weight": ["1.weight", "2.weight"]})
    assert net[0].bias.shape == net[1].bias.shape == net[1].running_mean.shape == (2,)
    assert net(torch.randn(1, 2, 3, 3)).shape == (1, 3, 3, 3)


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.AdamW])
def test_training_goes_on_as_with_the_zeros_left_in(optimizer_type: Any) -> None:
    nets = [_net(), _net()]
    kwargs = {"momentum": 0.9} if optimizer_type is torch.optim.SGD else {}
    optimizers = [optimizer_type(net.parameters(), lr=0.01, **kwargs) for net in nets]

    def step(net: ConvNet, optimizer: Any, dead: list[int]) -> Tensor:
        optimizer.zero_grad()
        loss = net(X).square().sum()
        loss.backward()
        optimizer.step()
        _prune(net, FILTER_GROUP, 0, dead)
        return loss

    losses = [step(net, optimizer, [1, 2]) for net, optimizer in zip(nets, optimizers, strict=True)]
    compress_strucure_pruned_module(nets[0], FILTER_MAP, optimizer=optimizers[0])
    assert nets[0].fc.weight.grad.shape == (5, 16)
    for _ in range(3):
        small = step(nets[0], optimizers[0], [])
        whole = step(nets[1], optimizers[1], [1, 2])
        assert torch.allclose(small, whole)
    assert len(losses) == 2
    keep = torch.tensor([0, 3, 4, 5])
    assert torch.allclose(nets[0].stem.weight, nets[1].stem.weight[keep])


@pytest.mark.parametrize(
    ("stem", "branch", "found"),
    [([1, 2], [1, 4], "stem.weight in 2.*branch.weight in 2"), ([1], [], "branch.weight in 0")],
)
def test_inconsistent_groups(stem: list[int], branch: list[int], found: str) -> None:
    net = _net()
    _prune(net, [name for name in FILTER_GROUP if name != "branch.weight"], 0, stem)
    _prune(net, ["branch.weight"], 0, branch)
    both = sorted(set(stem) & set(branch))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    message = f"inconsistent: of 6 units {len(both)} are zero in all .*{found}"
    with pytest.raises(ValueError, match=message):
        compress_strucure_pruned_module(net, FILTER_MAP)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    outputs = net(X)
    compress_strucure_pruned_module(net, FILTER_MAP, strict=False)
    assert _sizes(net)[0] == 6 - len(both)
    assert torch.allclose(net(X), outputs)


def test_some_parameters_may_have_more_zeros_but_all_matrices_may_not() -> None:
    net = _net()
    _prune(net, FILTER_GROUP, 0, [1])
    _prune(net, ["depthwise.weight"], 0, [4])  # a dead unit of a trained model
    with torch.no_grad():
        net.norm.bias.zero_()
    compress_strucure_pruned_module(net, FILTER_MAP)
    assert _sizes(net)[0] == 5
    net = _net()
    _prune(net, [name for name in FILTER_GROUP if name != "norm.bias"], 0, [1])
    with pytest.raises(
        ValueError, match=r"0 are zero in all .* stem.weight in 1, .*norm.bias in 0"
    ):
        compress_strucure_pruned_module(net, FILTER_MAP)


def test_one_unit_stays_when_all_are_zero(caplog: pytest.LogCaptureFixture) -> None:
    net = _net()
    _prune(net, FILTER_GROUP, 0, list(range(6)))
    before = net(X)
    compress_strucure_pruned_module(net, FILTER_MAP)
    assert _sizes(net) == (1,) * 6 + (4,)
    assert torch.allclose(net(X), before)
    assert "all 6 units" in caplog.text


def test_unknown_names(caplog: pytest.LogCaptureFixture) -> None:
    net = _net()
    _prune(net, FILTER_GROUP, 0, [0])
    wrong = {"stem.wieght": ["norm.weight"], **FILTER_MAP}
    with pytest.raises(ValueError, match=r"'stem.wieght'.*did you mean 'stem.weight'"):
        compress_strucure_pruned_module(net, wrong)
    compress_strucure_pruned_module(net, wrong, strict=False)
    assert _sizes(net)[0] == 5
    assert "'stem.wieght' is no parameter" in caplog.text


@pytest.mark.parametrize(
    ("groups", "structure_type", "message"),
    [
        (FILTER_MAP, "filters", "must be 'filter' or 'channel', found 'filters'"),
        ({"stem.weight": ["fc.bias"]}, "filter", "fc.bias has 5 outputs, which is no multiple"),
        ({"depthwise.weight": []}, "channel", "no parameter of the group 'depthwise.weight'"),
        (
            {"stem.weight": ["fc.weight"], "branch.weight": ["fc.weight"]},
            "filter",
            "two groups want to take different inputs from fc",
        ),
    ],
)
def test_maps_that_do_not_fit(groups: Any, structure_type: str, message: str) -> None:
    net = _net()
    _prune(net, ["stem.weight"], 0, [0])
    _prune(net, ["branch.weight"], 0, [1])
    with pytest.raises(ValueError, match=message):
        compress_strucure_pruned_module(net, groups, structure_type)
    assert _sizes(net) == (6,) * 6 + (24,)


def test_tied_weights() -> None:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    net[2].weight = net[0].weight
    _prune(net, ["0.weight"], 0, [1], size=4)
    with pytest.raises(ValueError, match=r"0.weight cannot be thinned: it is tied to 2.weight"):
        compress_strucure_pruned_module(net, {"0.weight": []})
    with pytest.raises(ValueError, match="tied to a weight that shrinks differently"):
        compress_strucure_pruned_module(net, {"0.weight": ["2.weight"]})
    assert net[0].weight.shape == (4, 4)


def test_wrappers_do_not_matter() -> None:
    net = _net()
    _prune(net, FILTER_GROUP, 0, [0, 5])
    compress_strucure_pruned_module(nn.DataParallel(net), FILTER_MAP)
    assert _sizes(net)[0] == 4
