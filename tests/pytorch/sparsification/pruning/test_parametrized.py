"""Pruning layers whose weights are computed from other parameters."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import (
    CAPruningModifier,
    ConstantPruningModifier,
    GMPruningModifier,
    OBSPruningModifier,
    TrainableParamsModifier,
)
from sparseml.pytorch.sparsification.param_selection import select_params
from sparseml.pytorch.utils import ModuleSparsificationInfo
from sparseml.pytorch.utils.layer_kinds import to_out_in
from sparseml.pytorch.utils.sparsification import GradSampler
from sparseml.report.describe import layer_sparsities

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm")


class Symmetric(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.triu() + values.triu(1).T


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((8, 1), 2.0))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.weight


class Powered(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * values.abs()


def _with(kind: type[nn.Module]) -> Callable[[nn.Module], nn.Module]:
    return lambda layer: parametrize.register_parametrization(layer, "weight", kind())


def _chained(layer: nn.Module) -> nn.Module:
    return _with(Scaled)(parametrizations.weight_norm(layer))


KINDS: dict[str, tuple[Callable[..., nn.Module], str | None]] = {
    "weight_norm": (parametrizations.weight_norm, "parametrizations.weight.original1"),
    "spectral_norm": (parametrizations.spectral_norm, "parametrizations.weight.original"),
    "scaled": (_with(Scaled), "parametrizations.weight.original"),
    "powered": (_with(Powered), "parametrizations.weight.original"),
    "chained": (_chained, "parametrizations.weight.original1"),
    "old weight_norm": (nn.utils.weight_norm, "weight_v"),
    "old spectral_norm": (nn.utils.spectral_norm, "weight_orig"),
    "pruned": (lambda x: prune.identity(x, "weight"), "weight_orig"),
    "orthogonal": (parametrizations.orthogonal, None),
    "symmetric": (_with(Symmetric), None),
}
MASKABLE = [kind for kind, (_, original) in KINDS.items() if original]


def _net(kind: str) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(KINDS[kind][0](nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 8))


def _modifier(**fields: Any) -> GMPruningModifier:
    fields = {"params": "__ALL_PRUNABLE__", "final_sparsity": 0.5, **fields}
    return GMPruningModifier(
        init_sparsity=0.0, start_epoch=0.0, end_epoch=1.0, update_frequency=0.25, **fields
    )


def _train(net: nn.Module, modifier: Any, steps: int = 8) -> ScheduledModifierManager:
    manager = ScheduledModifierManager([modifier])
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    optimizer = manager.modify(net, optimizer, steps_per_epoch=4)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
    return manager


def _sampler() -> dict[str, Any]:
    def batches(**_: Any) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(0)
        while True:
            inputs, targets = torch.randn(2, 4, 8, generator=generator)
            yield [inputs], {}, targets

    return {"data_loader_builder": batches, "loss_function": nn.functional.mse_loss}


def _zeros(net: nn.Module) -> list[float]:
    net(torch.randn(2, 8))  # old-fashioned weights are computed in the forward pass
    return [float((net[i].weight == 0).float().mean()) for i in (0, 2)]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("params", ["__ALL_PRUNABLE__", ["re:.*weight"], ["__ALL_PRUNABLE__"]])
def test_what_is_selected(kind: str, params: Any, device: str) -> None:
    net = _net(kind).to(device)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    original = KINDS[kind][1]
    selected = [one.name for one in _modifier(params=params).selects(net)]
    assert selected == ([f"0.{original}"] if original else []) + ["2.weight"]
    after = net.state_dict()
    assert device == "meta" or all(torch.equal(after[name], v) for name, v in before.items())


@pytest.mark.parametrize("kind", MASKABLE)
def test_the_weight_is_as_sparse_as_its_original(kind: str) -> None:
    net = _net(kind)
    manager = _train(net, _modifier(params=["0.weight", "2.weight"]))
    assert _zeros(net) == [0.5, 0.5]
    info = ModuleSparsificationInfo(net)
    assert info.params_info["0.weight"]["sparsity"] == 0.5
    assert info.params_prunable_sparse_percent == 50.0
    rows = layer_sparsities(net, manager)
    assert [(row.zeros, row.asked) for row in rows] == [(32, 0.5), (32, 0.5)]
    assert [row.zeros for row in layer_sparsities(net)] == [32, 32]
    constant = ConstantPruningModifier.from_sparse_model(net)
    assert [modifier.params for modifier in constant] == [["0.weight"], ["2.weight"]]
    manager.finalize(net)
    before = net.eval()(torch.ones(2, 8))
    if parametrize.is_parametrized(net[0]):
        parametrize.remove_parametrizations(net[0], "weight")
        assert isinstance(net[0].weight, nn.Parameter) and _zeros(net) == [0.5, 0.5]
        torch.testing.assert_close(net(torch.ones(2, 8)), before)


def test_masks_go_on_when_the_parametrization_is_removed() -> None:
    net = _net("weight_norm")
    modifier = _modifier()
    modifier.initialize(net, float("inf"))
    parametrize.remove_parametrizations(net[0], "weight")
    with torch.no_grad():
        net[0].weight.add_(1.0)
    modifier.masks.apply()
    assert _zeros(net) == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["orthogonal", "symmetric"])
def test_what_cannot_be_masked_is_left_out_once_with_the_reason(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    net = _net(kind)
    with caplog.at_level(logging.WARNING):
        _train(net, _modifier())
    assert _zeros(net)[1] == 0.5
    dense = [one for one in caplog.messages if "leaves dense what it cannot mask" in one]
    assert len(dense) == 1 and "0.weight (weight is computed by" in dense[0]
    caplog.clear()
    _train(_net(kind), _modifier(exclude=["0.weight"]))
    assert not any("leaves dense" in one for one in caplog.messages)
    for name in ("0.weight", "0.parametrizations.weight.original"):
        with pytest.raises(ValueError, match=r"cannot be masked: weight is computed by"):
            _modifier(params=[name]).initialize(net)
    with pytest.raises(ValueError, match=r"select no parameter.*0\.weight: weight is computed"):
        _modifier().selects(nn.Sequential(net[0]))


def test_what_only_takes_part_is_not_masked() -> None:
    name = "0.parametrizations.weight.original0"
    with pytest.raises(ValueError, match="only takes part in computing the weight"):
        _modifier(params=[name]).initialize(_net("weight_norm"))
    selected = _modifier(params=["re:0"]).selects(_net("scaled"))
    assert [one.param_name for one in selected] == ["bias", "parametrizations.weight.original"]


def test_all_of_what_a_weight_is_computed_from_is_frozen() -> None:
    net = _net("weight_norm")
    TrainableParamsModifier("__ALL_PRUNABLE__", False, start_epoch=0.0).apply(net)
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["0.bias", "2.bias"]
    assert len(select_params(net, ["0.weight"])) == 2


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("old", [False, True])
def test_no_norm_becomes_zero(dim: int | None, old: bool) -> None:
    norm = nn.utils.weight_norm if old else parametrizations.weight_norm
    net = nn.Sequential(norm(nn.Linear(8, 8), dim=dim), nn.ReLU(), nn.Linear(8, 8))
    original = net[0].weight_v if old else net[0].parametrizations.weight.original1
    with torch.no_grad():
        original[:4] *= 1e-3
        original[:, :2] *= 1e-3
    _train(net, _modifier(final_sparsity=0.95))
    weight = net[0].weight
    assert bool(weight.isfinite().all()) and bool(net(torch.ones(1, 8)).isfinite().all())
    if dim is not None:
        assert bool(weight.ne(0).any(dim=1 - dim).all())


def test_rows_kept_for_the_norm_keep_their_weights_under_second_order() -> None:
    net = _net("weight_norm")
    with torch.no_grad():
        net[0].parametrizations.weight.original1[:6] *= 1e-4
    modifier = OBSPruningModifier(
        0.0, 0.8, 0.0, 1.0, 0.5, params=["0.weight"], num_grads=8, fisher_block_size=8
    )
    modifier.apply(net, grad_sampler=_sampler())
    assert bool(net(torch.ones(1, 8)).isfinite().all())


def test_fisher_gradients_are_those_of_the_original() -> None:
    net = _net("weight_norm")
    plain = copy.deepcopy(net)
    modifier = CAPruningModifier(
        init_sparsity=0.0,
        final_sparsity=0.5,
        start_epoch=0.0,
        end_epoch=1.0,
        update_frequency=0.5,
        params=["0.weight"],
        num_grads=8,
        fisher_block_size=8,
    )
    modifier.apply(net, grad_sampler=_sampler())
    assert 0.4 < _zeros(net)[0] <= 0.5  # of a row that would be zero one weight stays
    # gradients of v are at right angles to v in each row, so those of the weight would differ
    original = plain[0].parametrizations.weight.original1
    builder = _sampler()["data_loader_builder"]
    sampler = GradSampler(builder, nn.functional.mse_loss)
    for _ in sampler.iter_module_backwards(plain, 8, progress_bar=False):
        assert float((original.grad * original.detach()).sum(1).abs().max()) < 1e-6
    with pytest.raises(RuntimeError, match="fisher_samples: batch"):
        modifier = CAPruningModifier(
            0.0, 0.5, 0.0, 1.0, 0.5, params=["0.weight"], fisher_samples="sample"
        )
        modifier.apply(plain, grad_sampler=_sampler())


@pytest.mark.parametrize("old", [False, True])
def test_transposed_layouts_are_those_of_the_weight(old: bool) -> None:
    norm = nn.utils.weight_norm if old else parametrizations.weight_norm
    layer = norm(nn.ConvTranspose1d(6, 4, 3))
    (found,) = _modifier().selects(nn.Sequential(layer))
    assert to_out_in(found.layer, found.param_name, found.param).shape == (4, 6, 3)
    net = nn.Sequential(layer)
    modifier = _modifier(mask_type="filter")
    modifier.apply(net)
    net(torch.randn(1, 6, 5))
    assert int((layer.weight == 0).all(dim=(0, 2)).sum()) == 2  # outputs are its second dimension
