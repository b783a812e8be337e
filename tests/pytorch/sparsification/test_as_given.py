"""Numbers of recipes that print as they were given, and their arithmetic."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import (
    MFACPruningModifier,
    OBSPruningModifier,
    RigLPruningModifier,
    TopKASTPruningModifier,
)
from sparseml.sparsification import ConstantPruningModifier, GMPruningModifier
from sparseml.utils.written_number import WrittenCount, WrittenNumber

_TIMES = {"start_epoch": 0.0, "end_epoch": 2.0, "update_frequency": 1.0}
_OBS = {"init_sparsity": 0.0, "final_sparsity": 0.5, **_TIMES, "params": "__ALL__"}
_RIGL = {"final_sparsity": 0.5, **_TIMES, "params": "__ALL_PRUNABLE__"}


@pytest.mark.parametrize(
    ("given", "printed"), [(64, "64"), (64.0, "64.0"), ("64", "64"), ("6.4e1", "6.4e1")]
)
def test_counts(given: Any, printed: str) -> None:
    modifier = OBSPruningModifier(**_OBS, num_grads=given)
    assert modifier.num_grads == 64 and isinstance(modifier.num_grads, int)
    assert len(range(modifier.num_grads)) == 64 and torch.empty(modifier.num_grads).numel() == 64
    assert f"num_grads: {printed}\n" in str(modifier)
    (again,) = ScheduledModifierManager.from_yaml(f"modifiers:\n- {modifier}").modifiers
    assert str(again) == str(modifier) and again.identifier() == modifier.identifier()


@pytest.mark.parametrize("wrong", [0, 1.5, "1.5", "many", True, None, -1, float("inf")])
def test_no_counts(wrong: Any) -> None:
    with pytest.raises(ValueError, match="num_grads must be"):
        OBSPruningModifier(**_OBS, num_grads=wrong)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])  # noqa: S301
def test_a_written_count_travels(twin: Any) -> None:
    count = twin(WrittenCount(64.0))
    assert count == 64 and str(count) == "64.0" and json.dumps({"n": count}) == '{"n": 64}'
    assert yaml.safe_load(yaml.safe_dump({"n": count})) == {"n": 64}


def test_texts_in_mappings_and_lists_print_as_written() -> None:
    recipe = """
    modifiers:
    - !OBSPruningModifier
        init_sparsity: 0.0
        final_sparsity: {5e-1: [a]}
        start_epoch: 0
        end_epoch: 4
        update_frequency: 1
        params: []
        global_sparsity: False
        grad_sampler_kwargs: {x: 1e-3, y: '2', z: [2.0, 1e-4]}
    """
    manager = ScheduledModifierManager.from_yaml(recipe)
    assert "final_sparsity: {5e-1: ['a']}\n" in str(manager)
    assert "grad_sampler_kwargs: {'x': 1e-3, 'y': '2', 'z': [2.0, 1e-4]}\n" in str(manager)
    again = ScheduledModifierManager.from_yaml(str(manager))
    assert str(again) == str(manager)
    assert again.modifiers[0].grad_sampler_kwargs == {"x": 0.001, "y": "2", "z": [2.0, 0.0001]}
    assert f"{[WrittenNumber('1e-3')]}" == "[1e-3]"


def test_counts_in_mappings() -> None:
    modifier = MFACPruningModifier(**_OBS, num_grads={0.0: 64.0, 0.5: "32"})
    assert "num_grads: {0.0: 64.0, 0.5: '32'}\n" in str(modifier)
    modifier.initialize(nn.Linear(4, 4), grad_sampler=None)
    modifier.finalize()


@pytest.mark.parametrize("given", [1, 0, 1.0, "1e-1"])
def test_shares_may_be_whole_numbers(given: Any) -> None:
    rigl = RigLPruningModifier(**_RIGL, init_update_fraction=given)
    topkast = TopKASTPruningModifier(0.5, given, **_TIMES, params="__ALL__")
    assert f"init_update_fraction: {given}\n" in str(rigl)
    assert f"backward_sparsity: {given}\n" in str(topkast)
    for wrong in (1.5, -1, "x", None):
        with pytest.raises((TypeError, ValueError), match="init_update_fraction"):
            RigLPruningModifier(**_RIGL, init_update_fraction=wrong)


@pytest.mark.parametrize("rule", ["uniform", "erdos_renyi"])
def test_uniform_sparsities_of_rigl(rule: str) -> None:
    net = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 3))
    modifier = RigLPruningModifier(**_RIGL, sparsity_strategy=rule)

    def batches(**_: Any) -> Any:
        while True:
            yield [torch.randn(2, 5)], {}, torch.randn(2, 3)

    sampler = {"data_loader_builder": batches, "loss_function": nn.functional.mse_loss}
    modifier.initialize(net, grad_sampler=sampler)
    assert modifier.applied_sparsity is None
    modifier.check_mask_update(net, 0.0, 4)
    zeros = [int((layer.weight == 0).sum()) for layer in net]
    assert sum(zeros) == 20
    counted = [zeros[0] / 25, zeros[1] / 15]
    assert modifier.applied_sparsity == ([0.5, 0.5] if rule == "uniform" else counted)


def test_neutral_modifiers_take_the_order_of_the_others() -> None:
    modifier = GMPruningModifier(0.1, 0.9, 0.0, 5.0, 0.5, ["a"], False, "linear", "2:4")
    assert modifier.props(only_serializable=True) == {
        "end_epoch": 5.0,
        "final_sparsity": 0.9,
        "init_sparsity": 0.1,
        "inter_func": "linear",
        "leave_enabled": False,
        "mask_type": "2:4",
        "params": ["a"],
        "start_epoch": 0.0,
        "update_frequency": 0.5,
    }
    constant = ConstantPruningModifier("__ALL__", update_frequency=3.0)
    assert repr(constant.update_frequency) == "-1"
