from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import StructuredPruningModifier
from sparseml.sparsification import SparsificationTypes

GROUP = ["0.weight", "0.bias", "1.weight", "1.bias"]


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1)
    )


def _modifier(**changes: Any) -> StructuredPruningModifier:
    fields = {
        "init_sparsity": 0.25,
        "final_sparsity": 0.5,
        "start_epoch": 0.0,
        "end_epoch": 2.0,
        "update_frequency": 1.0,
        "inter_func": "linear",
        **changes,
    }
    return StructuredPruningModifier(**fields)


def _zero_slices(param: Tensor, dim: int = 0) -> list[int]:
    slices = param.detach().transpose(0, dim).flatten(1) if param.ndim > 1 else param[:, None]
    return (slices == 0).all(dim=1).nonzero()[:, 0].tolist()


def test_defaults() -> None:
    modifier = StructuredPruningModifier(0.0, 0.5, 0.0, 1.0, 0.5)
    assert modifier.param_groups == []
    assert modifier.params == "__ALL_PRUNABLE__"
    assert modifier.mask_type == "filter"
    assert modifier.leave_enabled is True
    assert modifier.inter_func == "cubic"
    assert set(modifier.sparsification_types) == {
        SparsificationTypes.pruning,
        SparsificationTypes.structured,
    }
    assert "global_sparsity" not in str(modifier)


@pytest.mark.parametrize(("mask_type", "dim"), [("filter", 0), ("channel", 1)])
def test_one_shot_prunes_the_smallest_slices(net: nn.Module, mask_type: str, dim: int) -> None:
    weight = net[3].weight
    norms = weight.detach().transpose(0, dim).flatten(1).norm(dim=1)
    expected = norms.argsort()[: len(norms) // 2].sort().values.tolist()
    _modifier(mask_type=mask_type, params=["3.weight"]).apply(net)
    assert _zero_slices(weight, dim) == expected


def test_a_group_loses_the_same_filters_at_every_update(net: nn.Module, train: Any) -> None:
    modifier = _modifier(params=GROUP, param_groups=[GROUP])
    with torch.no_grad():
        net[1].bias.zero_()  # as fresh, which must not count as pruned
    counts = []
    for _ in train(net, [modifier], 12, shape=(2, 3, 4, 4)):
        zeros = [_zero_slices(net.get_parameter(name)) for name in GROUP]
        assert zeros.count(zeros[0]) == len(zeros)
        counts.append(len(zeros[0]))
    assert counts == [2] * 4 + [3] * 4 + [4] * 4
    assert net[3].weight.count_nonzero() == net[3].weight.numel()


def test_measured_initial_sparsity_of_a_group_is_the_least(net: nn.Module, train: Any) -> None:
    with torch.no_grad():
        net[1].bias.zero_()
        net[0].weight[[1, 2]] = 0
    modifier = _modifier(params=GROUP, param_groups=[GROUP], init_sparsity="__FROM_PARAM__")
    next(train(net, [modifier], 1, shape=(2, 3, 4, 4)))
    # the weights of the normalisation have no zero, so the group starts without any
    assert modifier._init_sparsity == [0.25, 0.0, 0.0, 1.0]
    assert modifier.module_masks is not None
    assert all(bool(mask.all()) for mask in modifier.module_masks.param_masks)


def test_groups_of_different_sizes(train: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, 4))
    modifier = _modifier(
        params=["0.weight", "3.weight", "2.weight"],
        param_groups=[["3.weight", "2.weight"]],
        mask_type="channel",
        init_sparsity=0.5,
    )
    next(train(net, [modifier], 1, shape=(2, 3, 2, 2)))
    small, large = (_zero_slices(net[index].weight, 1) for index in (3, 2))
    assert len(small) == 2
    assert large == [4 * unit + i for unit in small for i in range(4)]
    assert len(_zero_slices(net[0].weight, 1)) == 2  # half of 3, rounded


def test_depthwise_inputs_stay_unmasked(net: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    names = ["0.weight", "1.weight"]
    _modifier(params=names, param_groups=[names], mask_type="channel").apply(net)
    assert net[0].weight.count_nonzero() == net[0].weight.numel()
    assert len(_zero_slices(net[1].weight, 1)) == 4


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([["0.weight", "1.wieght"]], r"names '1.wieght'.*did you mean '1.weight'"),
        ([["0.weight"], ["0.bias", "0.weight"]], "names '0.weight' twice"),
        ([["0.weight", "3.weight", "3.bias"]], r"multiples of the smallest.*3.bias"),
    ],
)
def test_groups_that_do_not_fit(net: nn.Module, groups: Any, message: str) -> None:
    modifier = _modifier(params="__ALL__", param_groups=groups)
    with pytest.raises(ValueError, match=message):
        modifier.initialize(net)
    assert not modifier.initialized


def test_members_of_a_group_need_one_final_sparsity(net: nn.Module) -> None:
    final = {0.5: ["0.weight"], 0.25: ["1.weight"]}
    modifier = _modifier(
        params=[], final_sparsity=final, init_sparsity=0.0, param_groups=[["0.weight", "1.weight"]]
    )
    with pytest.raises(ValueError, match=r"one final sparsity, found 0.25, 0.5"):
        modifier.initialize(net)
    _modifier(params=[], final_sparsity=final, init_sparsity=0.0).apply(net)
    assert (len(_zero_slices(net[0].weight)), len(_zero_slices(net[1].weight))) == (4, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_type": "unstructured"}, "mask_type must be 'filter' or 'channel'"),
        ({"mask_type": "filters"}, "did you mean 'filter'"),
        ({"param_groups": ["0.weight"]}, "param_groups must be a list of lists"),
        ({"param_groups": {"a": 1}}, "param_groups must be a list of lists"),
    ],
)
def test_wrong_fields(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _modifier(**changes)


def test_channels_of_a_vector(net: nn.Module) -> None:
    modifier = _modifier(params=["0.weight", "0.bias"], mask_type="channel")
    with pytest.raises(ValueError, match=r"0.bias of shape \(8,\) has no channels"):
        modifier.initialize(net)


def test_structure_is_no_reason_to_prune(net: nn.Module) -> None:
    before = [param.clone() for param in net.parameters()]
    modifier = _modifier()
    modifier.apply_structure(net, math.inf, finalize=True)
    assert all(torch.equal(*pair) for pair in zip(net.parameters(), before, strict=True))


def test_from_yaml(net: nn.Module) -> None:
    recipe = f"""
    modifiers:
      - !StructuredPruningModifier
          params: __ALL__
          param_groups:
            - {GROUP}
          init_sparsity: 0.0
          final_sparsity: 0.5
          start_epoch: 0.0
          end_epoch: 1.0
          update_frequency: 0.5
          mask_type: filter
    """
    manager = ScheduledModifierManager.from_yaml(recipe)
    again = ScheduledModifierManager.from_yaml(str(manager))
    assert again.modifiers[0].param_groups == [GROUP]
    again.apply(net)
    assert len(_zero_slices(net[0].weight)) == 4
