from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import (
    LayerThinningModifier,
    StructuredPruningModifier,
    compress_strucure_pruned_module,
    modifier_thinning,
)
from sparseml.pytorch.units import dependency_groups
from sparseml.pytorch.utils.model import load_model, save_model
from sparseml.pytorch.utils.saving.checkpoint import load_checkpoint, save_checkpoint
from sparseml.sparsification import SparsificationTypes

MAP = {"0.weight,0.bias": ["2.weight"]}


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        net[0].weight[[1, 5]] = 0
        net[0].bias[[1, 5]] = 0
    return net


def _steps(modifier: LayerThinningModifier, net: nn.Module, epochs: list[float]) -> list[Any]:
    """Whether an update was due at each epoch, and how many filters there are after it."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    seen = []
    for epoch in epochs:
        due = modifier.update_ready(epoch, 4)
        if due:
            modifier.scheduled_update(net, optimizer, epoch, 4)
        seen.append((due, net[0].out_features))
    return seen


def test_defaults() -> None:
    modifier = LayerThinningModifier(MAP, end_epoch=3.0)
    assert modifier.structure_type == "filter"
    assert modifier.update_epochs == []
    assert modifier.strict is True
    assert (modifier.start_epoch, modifier.end_epoch) == (-1.0, -1.0)
    assert SparsificationTypes.structured in modifier.sparsification_types
    assert modifier_thinning.compress_strucure_pruned_module is compress_strucure_pruned_module


def test_the_start_alone_only_counts_as_an_update(net: nn.Module) -> None:
    modifier = LayerThinningModifier(MAP, start_epoch=1.0)
    modifier.initialize(net)
    assert _steps(modifier, net, [0.0, 1.0, 1.25, 2.0]) == [
        (False, 8), (True, 8), (False, 8), (False, 8)
    ]  # fmt: skip
    assert modifier.started
    modifier.finalize(net)
    assert net[0].out_features == 6


def test_each_update_epoch_thins(net: nn.Module) -> None:
    modifier = LayerThinningModifier(MAP, start_epoch=0.0, update_epochs=[1.0, 2.5])
    modifier.initialize(net)
    assert _steps(modifier, net, [0.0, 0.75, 1.25, 1.5]) == [
        (True, 8), (False, 8), (True, 6), (False, 6)
    ]  # fmt: skip
    with torch.no_grad():
        net[0].weight[0] = 0
        net[0].bias[0] = 0
    assert _steps(modifier, net, [2.25, 2.5, 2.75]) == [(False, 6), (True, 5), (False, 5)]
    with torch.no_grad():
        net[0].weight[0] = 0
        net[0].bias[0] = 0
    modifier.finalize(net)
    assert net[0].out_features == 5


def test_start_and_removal_in_one_update(net: nn.Module) -> None:
    modifier = LayerThinningModifier(MAP, update_epochs=[0.0])
    modifier.initialize(net)
    assert _steps(modifier, net, [0.0, 0.25]) == [(True, 6), (False, 6)]


def test_one_shot_and_structure(net: nn.Module) -> None:
    modifier = LayerThinningModifier(MAP)
    modifier.apply_structure(net, float("inf"))
    assert net[0].out_features == 8
    again = copy.deepcopy(net)
    for model in (net, again):
        modifier.apply(model)
        assert model[0].out_features == 6
    disabled = LayerThinningModifier({"2.weight,2.bias": []})
    disabled.initialize(net)
    disabled.enabled = False
    assert not disabled.update_ready(0.0, 4)
    disabled.finalize(net)


def test_advance_epochs() -> None:
    modifier = LayerThinningModifier(MAP, start_epoch=1.0, update_epochs=[2.0, 3.0])
    modifier.advance_epochs(10.0)
    assert (modifier.start_epoch, modifier.update_epochs) == (11.0, [12.0, 13.0])
    modifier.advance_epochs(None)
    assert (modifier.start_epoch, modifier.end_epoch) == (11.0, -1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure_type": "row"}, "structure_type must be 'filter' or 'channel'"),
        ({"update_epochs": [2.0, 1.0]}, "ascending order"),
        ({"update_epochs": [1.0, 1.0]}, "ascending order"),
        ({"update_epochs": [-1.0]}, "ascending order"),
        ({"update_epochs": 3.0}, "must be a list of epochs, found 3.0"),
        ({"update_epochs": ["soon"]}, "must be a number, found 'soon'"),
        ({"param_group_dependency_map": {1: ["2.weight"]}}, "must map comma separated"),
        ({"param_group_dependency_map": {"0.weight": "2.weight"}}, "must map comma separated"),
        ({"param_group_dependency_map": ["0.weight"]}, "must map comma separated"),
    ],
)
def test_wrong_fields(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerThinningModifier(**{"param_group_dependency_map": MAP, **changes})


def test_inconsistent_groups_and_strict(net: nn.Module) -> None:
    with torch.no_grad():
        net[0].bias[1] = 1.0
    with pytest.raises(
        ValueError, match=r"inconsistent: of 8 units 1 are zero in all .*0.weight in 2"
    ):
        LayerThinningModifier(MAP).apply(net)
    LayerThinningModifier({**MAP, "9.weight": []}, strict=False).apply(net)
    assert net[0].out_features == 7


def test_from_yaml() -> None:
    recipe = """
    modifiers:
      - !LayerThinningModifier
          param_group_dependency_map:
            '0.weight,0.bias': ['2.weight']
          update_epochs: [1, 2.5]
          strict: False
    """
    manager = ScheduledModifierManager.from_yaml(recipe)
    (again,) = ScheduledModifierManager.from_yaml(str(manager)).modifiers
    assert again.param_group_dependency_map == MAP
    assert again.update_epochs == [1.0, 2.5]
    assert again.strict is False


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.inner = nn.Conv2d(12, 8, 1)
        self.outer = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.outer(self.inner(x).relu())
        return self.head(x.mean(dim=(2, 3)))


class _Run:
    """Prunes to half of the filters over two epochs of four steps, and thins at 1.0 and 2.0."""

    def __init__(self, structure_type: str, optimizer_type: Any = torch.optim.AdamW) -> None:
        torch.manual_seed(0)
        self.net = _Residual()
        found = dependency_groups(self.net, torch.randn(2, 3, 4, 4), structure_type)
        self.groups = found
        modifiers = [
            StructuredPruningModifier(
                0.25, 0.5, 0.0, 2.0, 0.5, inter_func="linear",
                params=found.params, param_groups=found.param_groups, mask_type=structure_type,
            ),
            LayerThinningModifier(
                found.param_group_dependency_map, structure_type, update_epochs=[1.0, 2.0]
            ),
        ]  # fmt: skip
        self.manager = ScheduledModifierManager(modifiers)
        kwargs = {"momentum": 0.9} if optimizer_type is torch.optim.SGD else {}
        optimizer = optimizer_type(self.net.parameters(), lr=0.01, **kwargs)
        self.optimizer = self.manager.modify(self.net, optimizer, steps_per_epoch=4)
        self.loss: Any = None

    def train(self, steps: range) -> None:
        for step in steps:
            self.optimizer.zero_grad()
            inputs = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(step))
            # kept alive over the next step, as in many training loops
            self.loss = (self.net(inputs) - 1.0).pow(2).mean()
            self.loss.backward()
            self.optimizer.step()

    def sizes(self) -> tuple[int, ...]:
        net = self.net
        return (net.stem.out_channels, net.inner.out_channels, net.outer.out_channels)


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("structure_type", ["filter", "channel"])
def test_pruned_filters_go_while_training(structure_type: str, optimizer_type: Any) -> None:
    run = _Run(structure_type, optimizer_type)
    assert len(run.groups.groups) == 2
    sizes = []
    for step in range(11):
        run.train(range(step, step + 1))
        sizes.append(run.sizes())
    # three eighths of 12 and 8 are removed at epoch 1
    assert sizes == [(12, 8, 12)] * 4 + [(8, 5, 8)] * 4 + [(6, 4, 6)] * 3
    x = torch.randn(2, 3, 4, 4)
    run.net.eval()
    before = run.net(x)
    run.manager.finalize(run.net)
    assert torch.equal(run.net(x), before)
    assert run.sizes() == (6, 4, 6)


def test_sparsity_counts_what_was_removed() -> None:
    run = _Run("filter")
    pruner = run.manager.pruning_modifiers[0]
    counts = []
    for step in range(10):
        run.train(range(step, step + 1))
        masks = dict(zip(pruner.module_masks.names, pruner.module_masks.param_masks, strict=True))
        counts.append(int(masks["stem.weight.sparsity_mask"].flatten(1).any(dim=1).sum()))
    assert counts == [9, 9, 8, 8, 8, 8, 7, 7, 6, 6]


@pytest.mark.parametrize("structure_type", ["filter", "channel"])
def test_a_run_resumed_after_any_step_ends_alike(structure_type: str, tmp_path: Path) -> None:
    whole = _Run(structure_type)
    snapshots = []
    for step in range(10):
        path = tmp_path / f"{step}.pth"
        if step:
            save_checkpoint(path, whole.net, optimizer=whole.optimizer, manager=whole.manager)
            snapshots.append((step, path))
        whole.train(range(step, step + 1))
    expected = whole.net.state_dict()
    for step, path in snapshots:
        run = _Run(structure_type)
        load_checkpoint(path, run.net, optimizer=run.optimizer, manager=run.manager)
        run.train(range(step, 10))
        assert run.sizes() == whole.sizes()
        found = run.net.state_dict()
        assert all(torch.equal(value, found[name]) for name, value in expected.items()), step
        assert torch.equal(run.loss, whole.loss)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_model_file_reloads_to_the_same_shapes(suffix: str, tmp_path: Path) -> None:
    run = _Run("filter")
    run.train(range(10))
    path = tmp_path / f"model.{suffix}"
    save_model(path, run.net, recipe=run.manager)
    fresh = _Residual()
    load_model(path, fresh, strict=True)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(fresh.eval()(x), run.net.eval()(x))
    assert str(fresh) == str(run.net)
