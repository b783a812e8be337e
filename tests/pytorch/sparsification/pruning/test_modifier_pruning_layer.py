from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.nn import Identity
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import LayerPruningModifier
from sparseml.pytorch.utils.model import load_model, save_model
from sparseml.pytorch.utils.saving.checkpoint import load_checkpoint, save_checkpoint
from sparseml.sparsification import SparsificationTypes


@pytest.fixture
def net() -> nn.Module:
    blocks = nn.Sequential(
        *(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(3))
    )
    return nn.Sequential(blocks, nn.Linear(8, 4))


def _is_out(net: nn.Module, name: str) -> bool:
    return isinstance(net.get_submodule(name), Identity)


def test_defaults() -> None:
    modifier = LayerPruningModifier(["0"])
    assert (modifier.start_epoch, modifier.end_epoch, modifier.update_frequency) == (-1, -1, -1)
    assert set(modifier.sparsification_types) == {
        SparsificationTypes.pruning,
        SparsificationTypes.structured,
    }


def test_layers_go_at_the_start_and_come_back_at_the_end(net: nn.Module, train: Any) -> None:
    block, weight = net[0][1], net[0][1][0].weight.detach().clone()
    modifier = LayerPruningModifier(["0.1"], start_epoch=1.0, end_epoch=2.0)
    out = []
    moved = []
    for _ in train(net, [modifier], 12):
        out.append(_is_out(net, "0.1"))
        assert modifier._layer_modules["0.1"] is (block if out[-1] else None)
        moved.append(not torch.equal(block[0].weight, weight))
        weight = block[0].weight.detach().clone()
    assert out == [False] * 4 + [True] * 4 + [False] * 4
    # neither momentum nor a gradient moves a layer that is out; at the end it waits for its own
    assert moved == [True] * 4 + [False] * 5 + [True] * 3
    assert net[0][1] is block


@pytest.mark.parametrize(
    ("epoch", "out"), [(0.0, False), (1.0, True), (1.5, True), (2.0, False), (math.inf, False)]
)
def test_initialize_and_apply_structure_bring_the_structure_of_the_epoch(
    net: nn.Module, epoch: float, out: bool
) -> None:
    for method in ("initialize", "apply_structure"):
        model = copy.deepcopy(net)
        modifier = LayerPruningModifier(["0.1"], start_epoch=1.0, end_epoch=2.0)
        getattr(modifier, method)(model, epoch)
        assert _is_out(model, "0.1") == out
        assert modifier.initialized


def test_finalize_takes_layers_out_only_if_that_never_happened(net: nn.Module, train: Any) -> None:
    late = LayerPruningModifier(["0.1"], start_epoch=9.0)
    for _ in train(net, [late], 4):
        pass
    late.finalize(net)
    assert _is_out(net, "0.1")
    over = LayerPruningModifier(["0.2"], start_epoch=0.0, end_epoch=0.5)
    for _ in train(net, [over], 4):
        pass
    over.finalize(net)
    assert not _is_out(net, "0.2")
    one_shot = LayerPruningModifier(["0.0"], start_epoch=0.0)
    one_shot.apply(net)
    assert _is_out(net, "0.0")


@pytest.mark.parametrize("epoch", [0.0, 3.0, 9.0, math.inf])
def test_an_end_brings_layers_back_when_finalised_before_it(net: nn.Module, epoch: float) -> None:
    layers = dict(net.named_modules())
    modifier = LayerPruningModifier(["0.1"], start_epoch=2.0, end_epoch=5.0)
    modifier.initialize(net, epoch)
    assert _is_out(net, "0.1") == (epoch == 3.0)
    modifier.finalize(net)
    assert dict(net.named_modules()) == layers
    modifier.apply(net)
    assert dict(net.named_modules()) == layers


def test_every_step_is_an_update_once_started(net: nn.Module) -> None:
    modifier = LayerPruningModifier(["0.1"], start_epoch=1.0, end_epoch=3.0, update_frequency=1.0)
    assert modifier.update_frequency == -1.0 and "update_frequency: -1.0" in str(modifier)
    modifier.initialize(net)
    ready = []
    for step in range(16):
        ready.append(modifier.update_ready(step / 4, 4))
        if ready[-1]:
            modifier.scheduled_update(net, None, step / 4, 4)
    assert ready == [4 <= step <= 12 for step in range(16)]


def test_disabled_modifiers_do_nothing_at_the_end(net: nn.Module) -> None:
    modifier = LayerPruningModifier(["0.1"], start_epoch=9.0)
    modifier.initialize(net)
    modifier.enabled = False
    modifier.finalize(net)
    assert not _is_out(net, "0.1")


@pytest.mark.parametrize(
    ("layers", "out"),
    [
        ("__ALL_PRUNABLE__", ["0.0.0", "0.1.0", "0.2.0", "1"]),
        (["re:0\\.[12]$"], ["0.1", "0.2"]),
        (["0.1", "0.1.0"], ["0.1"]),
        ("__ALL__", [f"0.{i}.{j}" for i in range(3) for j in range(3)] + ["1"]),
        (["module.0.2"], ["0.2"]),
    ],
)
def test_which_layers(net: nn.Module, layers: Any, out: list[str]) -> None:
    modifier = LayerPruningModifier(layers)
    modifier.initialize(net)
    assert list(modifier._layer_modules) == out
    assert [n for n, layer in net.named_modules() if isinstance(layer, Identity)] == out


def test_lists_of_layers_are_none() -> None:
    """The model goes through a list itself, and calls only what is in it."""
    net = nn.Sequential()
    net.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))])
    modifier = LayerPruningModifier(["re:blocks"])
    modifier.initialize(net)
    assert list(modifier._layer_modules) == ["blocks.0", "blocks.1"]
    with pytest.raises(RuntimeError, match="'blocks' matches no layer"):
        LayerPruningModifier(["blocks"]).initialize(net)


def test_a_layer_in_several_places_goes_from_all() -> None:
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared), nn.Linear(2, 2))
    modifier = LayerPruningModifier(["0"], start_epoch=0.0, end_epoch=1.0)
    modifier.initialize(net)
    assert net[0] is net[2][0] and isinstance(net[0], Identity)
    assert len(list(net.parameters())) == 2
    modifier.scheduled_update(net, None, 1.0, 4)
    assert net[0] is shared and net[2][0] is shared and type(net[3]) is nn.Linear


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["0.1", "0.7"], RuntimeError, "'0.7' matches no layer of Sequential"),
        (["re:block"], RuntimeError, "'re:block' matches no layer"),
        ("0.1", ValueError, "layers"),
        (["re:("], ValueError, "bad regular expression"),
    ],
)
def test_layers_that_are_not_there(net: nn.Module, layers: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        LayerPruningModifier(layers).initialize(net)
    assert not any(isinstance(layer, Identity) for layer in net.modules())


RECIPE = """
modifiers:
  - !LayerPruningModifier
      layers: ['0.0']
      start_epoch: 0.5
      end_epoch: 1.0
  - !LayerPruningModifier
      layers: ['0.1']
      start_epoch: 1.0
      end_epoch: 2.0
  - !LayerPruningModifier
      layers: ['0.2']
      start_epoch: 0.0
      end_epoch: 1.5
"""


class _Run:
    def __init__(self, net: nn.Module) -> None:
        self.net = copy.deepcopy(net)
        self.manager = ScheduledModifierManager.from_yaml(RECIPE)
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.01)
        self.optimizer = self.manager.modify(self.net, optimizer, steps_per_epoch=4)

    def train(self, steps: range) -> None:
        for step in steps:
            self.optimizer.zero_grad()
            inputs = torch.randn(6, 8, generator=torch.Generator().manual_seed(step))
            (self.net(inputs) - 1.0).pow(2).mean().backward()
            self.optimizer.step()


@pytest.mark.parametrize("stop", range(1, 10))
def test_a_run_resumed_after_any_step_ends_alike(net: nn.Module, tmp_path: Path, stop: int) -> None:
    whole = _Run(net)
    whole.train(range(10))
    first = _Run(net)
    first.train(range(stop))
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, first.net, optimizer=first.optimizer, manager=first.manager)
    resumed = _Run(copy.deepcopy(net).apply(_spoil))
    load_checkpoint(path, resumed.net, optimizer=resumed.optimizer, manager=resumed.manager)
    resumed.train(range(stop, 10))
    expected = whole.net.state_dict()
    assert list(resumed.net.state_dict()) == list(expected)
    assert all(torch.equal(v, expected[k]) for k, v in resumed.net.state_dict().items())


def _spoil(layer: nn.Module) -> None:
    """Weights that a resumed run must not need."""
    if isinstance(layer, nn.Linear):
        nn.init.zeros_(layer.weight)


def test_progress_needs_the_structure_first(net: nn.Module) -> None:
    run = _Run(net)
    run.train(range(5))
    state = run.manager.state_dict()
    other = _Run(net)
    with pytest.raises(RuntimeError, match="call load_structure_state"):
        other.manager.load_state_dict(state)
    other.manager.load_structure_state(other.net, state)
    other.manager.load_state_dict(state)
    assert isinstance(other.net[0][0], nn.Sequential)


def test_a_model_file_reloads_to_the_same_layers(net: nn.Module, tmp_path: Path) -> None:
    path, fresh = tmp_path / "model.pth", copy.deepcopy(net)
    manager = ScheduledModifierManager([LayerPruningModifier(["0.1"], start_epoch=1.0)])
    manager.apply(net)
    save_model(path, net, recipe=manager, epoch=3.0)
    load_model(path, fresh, strict=True)
    assert _is_out(fresh, "0.1")
    x = torch.randn(3, 8)
    assert torch.equal(fresh.eval()(x), net.eval()(x))
