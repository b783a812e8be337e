"""Which parameters are pruned, what the log says of them, and what is refused."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn

from sparseml.pytorch.sparsification.pruning import GMPruningModifier


def magnitude(params="__ALL_PRUNABLE__", **fields):
    defaults = {"init_sparsity": 0.25, "final_sparsity": 0.75}
    defaults |= {"start_epoch": 1.0, "end_epoch": 3.0, "update_frequency": 0.5}
    return GMPruningModifier(params=params, **{**defaults, **fields})


def test_the_log_says_what_patterns_catch(linear_net, caplog):
    linear_net[2].weight.requires_grad_(False)
    with caplog.at_level(logging.INFO):
        magnitude(["0.weight", "re:.*weight"]).apply(linear_net)
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage() == (
        "GMPruningModifier prunes 2 tensors of 192 weights; matched by "
        "'0.weight': 1 tensor of 128 weights, 're:.*weight': 2 tensors of 192 weights; "
        "1 of them frozen, pruned all the same: 2.weight"
    )


def test_the_log_does_not_repeat_long_lists(caplog):
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(13)))
    with caplog.at_level(logging.INFO):
        magnitude([f"{i}.weight" for i in range(13)]).initialize(net)
        magnitude(["3.weight"]).initialize(net)
    assert [record.getMessage() for record in caplog.records] == [
        "GMPruningModifier prunes 13 tensors of 52 weights; matched by 13 names and patterns",
        "GMPruningModifier prunes 1 tensor of 4 weights",
    ]


def test_tied_weights_are_pruned_and_counted_once(caplog, sparsities):
    net = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6))
    net[1].weight = net[0].weight
    modifier = magnitude()
    with caplog.at_level(logging.INFO):
        modifier.initialize(net)
    assert "prunes 1 tensor of 24 weights" in caplog.text
    assert "tied weights count once: 0.weight = 1.weight" in caplog.text
    modifier.check_mask_update(net, math.inf, 1)
    assert int((net[1].weight == 0).sum()) == 18
    assert list(modifier.state_dict()) == ["0.weight.sparsity_mask"]


def test_a_parameter_named_twice_is_pruned_once(linear_net):
    modifier = magnitude(["0.weight", "0.weight", "re:0.w"])
    modifier.initialize(linear_net)
    assert len(modifier.module_masks) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["uniform", "global"])
def test_counts_are_exact_in_half_precision(linear_net, dtype, kind):
    linear_net.to(dtype)
    magnitude(global_sparsity=kind == "global").apply(linear_net)
    zeros = sum(int((linear_net[i].weight == 0).sum()) for i in (0, 2))
    assert zeros == 144
    assert linear_net[0].weight.dtype == dtype


def test_frozen_parameters_are_pruned_and_stay_pruned(linear_net, sparsities, train):
    linear_net[0].weight.requires_grad_(False)
    for _ in train(linear_net, [magnitude()], steps=14):
        pass
    assert sparsities(linear_net)["0.weight"] == 0.75


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"params": ["re:nothing.*"]}, RuntimeError, "matches no parameter"),
        ({"params": ["0.wieght"]}, RuntimeError, r"'0.wieght' matches no parameter.*0\.weight"),
        ({"params": ["re:("]}, ValueError, "bad regular expression"),
        ({"params": "0.weight"}, ValueError, "found '0.weight'"),
        ({"mask_type": "bananas"}, ValueError, "mask_type must be one of"),
        ({"mask_type": "7x3"}, ValueError, r"'7x3' cannot mask 0\.weight: blocks of 7x3"),
    ],
)
def test_wrong_fields_are_refused_at_the_latest_when_initialising(
    linear_net, change, error, message
):
    with pytest.raises(error, match=message):
        magnitude(**change).initialize(linear_net)


@pytest.mark.parametrize("frequency", [0.0, -0.5])
def test_update_frequencies_must_be_possible(frequency):
    with pytest.raises(ValueError, match="update_frequency"):
        magnitude(update_frequency=frequency)


def test_models_without_what_is_to_be_pruned_are_refused():
    with pytest.raises(ValueError, match="select no parameter"):
        magnitude().initialize(nn.ReLU())
    with pytest.raises((ValueError, RuntimeError), match="no parameter"):
        magnitude("__ALL__").initialize(nn.ReLU())


def test_only_modules_are_pruned():
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, found dict"):
        magnitude().apply({})


def test_parameters_without_values_are_refused():
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    modifier = magnitude()
    with pytest.raises(ValueError, match=r"meta device have no values.*: 0\.weight, 1\.weight"):
        modifier.initialize(net)
    assert not modifier.initialized


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float8_e4m3fn])
def test_parameters_that_cannot_be_ranked_are_refused(dtype):
    net = nn.Linear(4, 4)
    net.weight = nn.Parameter(torch.zeros(4, 4, dtype=dtype), requires_grad=False)
    with pytest.raises(ValueError, match=rf"at least 16 bits .* weight \({dtype}\)"):
        magnitude().apply(net)


def test_lazy_layers_are_refused_by_name():
    net = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(4))
    with pytest.raises(ValueError, match=r"lazy layers have no values .*: 1\.weight"):
        magnitude().apply(net)
    net(torch.zeros(1, 4))
    magnitude().apply(net)


def test_nan_weights_are_refused_by_name(linear_net):
    linear_net[2].weight.data[1, 1] = float("nan")
    modifier = magnitude()
    with pytest.raises(ValueError, match=r"weights of 2\.weight: 1 of 64 values are NaN"):
        modifier.apply(linear_net)
