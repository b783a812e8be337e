from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sparseml.pytorch.sparsification.pruning import (
    BaseGradualPruningModifier,
    GlobalMagnitudePruningModifier,
    GMPruningModifier,
    MagnitudePruningModifier,
    MovementPruningModifier,
)

COMMON = {"start_epoch": 0.0, "end_epoch": 4.0, "update_frequency": 1.0}
ALL = [
    GMPruningModifier,
    MagnitudePruningModifier,
    GlobalMagnitudePruningModifier,
    MovementPruningModifier,
]


def gm(cls=GMPruningModifier, **fields):
    fields = {"params": "__ALL_PRUNABLE__", "init_sparsity": 0.1, "final_sparsity": 0.8, **fields}
    return cls(**{**COMMON, **fields})


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(
    ("value", "error"),
    [(90, TypeError), (1, TypeError), ("half", TypeError), (None, TypeError), ([0.5], TypeError)]
    + [(value, ValueError) for value in (1.5, -0.1, 0.0, 1.0, 90.0, float("nan"))],
)
def test_final_sparsity_is_a_fraction(cls, value, error):
    with pytest.raises(error, match=r"final_sparsity.*(fraction in \[0, 1\]|strictly between 0)"):
        gm(cls, final_sparsity=value)


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, TypeError), (1, TypeError), ("half", TypeError), (True, TypeError), (None, TypeError)]
    + [(value, ValueError) for value in (1.5, -0.1, 50.0)],
)
def test_init_sparsity_is_a_fraction_or_the_token(value, error):
    with pytest.raises(error, match=r"init_sparsity: a sparsity is a fraction in \[0, 1\]"):
        gm(init_sparsity=value)
    assert gm(init_sparsity=0.0).init_sparsity == 0.0
    assert gm(init_sparsity=1.0).init_sparsity == 1.0
    assert gm(init_sparsity="__FROM_PARAM__").init_sparsity == "__FROM_PARAM__"


def test_messages_say_what_may_have_been_meant():
    with pytest.raises(TypeError, match=r"found 90; did you mean 0\.9\?"):
        gm(final_sparsity=90)
    with pytest.raises(ValueError, match=r"final_sparsity.*found 85.0; did you mean 0\.85\?"):
        gm(final_sparsity={85.0: ["re:.*"]}, params=[])
    with pytest.raises(ValueError, match=r"found 'cubik'; did you mean 'cubic'\?"):
        gm(inter_func="cubik")


def test_numbers_that_yaml_reads_as_text_are_numbers():
    modifier = gm(init_sparsity="5e-2", final_sparsity="9e-1")
    assert (modifier.init_sparsity, modifier.final_sparsity) == (0.05, 0.9)


@pytest.mark.parametrize("curve", ["linear", "cubic", "inverse_cubic"])
def test_ends_are_exact(curve, linear_net):
    modifier = gm(inter_func=curve)
    modifier.initialize(linear_net)
    targets = {
        epoch: modifier.get_applied_sparsity_for_epoch(epoch, 4) for epoch in (0, 2, 4, 9, math.inf)
    }
    assert targets[0] == [0.1, 0.1]
    assert targets[4] == targets[9] == targets[math.inf] == [0.8, 0.8]
    middle = {"linear": 0.45, "cubic": 0.7125, "inverse_cubic": 0.24441}
    assert targets[2] == pytest.approx([middle[curve]] * 2, abs=1e-5)


@pytest.mark.parametrize("curve", ["linear", "cubic", "inverse_cubic"])
def test_one_shot_reaches_the_final_sparsity_on_every_curve(curve, linear_net, sparsities):
    gm(inter_func=curve).apply(linear_net)
    assert sparsities(linear_net)["2.weight"] == pytest.approx(0.8, abs=0.01)


def test_without_an_end_the_final_sparsity_comes_at_once(linear_net, sparsities):
    gm(start_epoch=-1.0, end_epoch=-1.0).apply(linear_net)
    assert sparsities(linear_net)["2.weight"] == pytest.approx(0.8, abs=0.01)


def test_each_parameter_starts_from_its_own_sparsity(linear_net, sparsities):
    linear_net[0].weight.data[:8] = 0.0
    modifier = gm(init_sparsity="__FROM_PARAM__")
    modifier.initialize(linear_net)
    assert modifier._init_sparsity == [0.5, 0.0]
    assert modifier.init_sparsity == "__FROM_PARAM__"
    assert "init_sparsity: __FROM_PARAM__" in str(modifier)
    optimizer = torch.optim.SGD(linear_net.parameters(), lr=0.1)
    modifier.scheduled_update(linear_net, optimizer, 0.0, 4)
    assert modifier.applied_sparsity == [0.5, 0.0]
    assert sparsities(linear_net)["0.weight"] == 0.5
    assert modifier.progress_state()["init_sparsity"] == [0.5, 0.0]


def test_with_one_ranking_they_start_from_their_common_sparsity(linear_net):
    linear_net[0].weight.data[:8] = 0.0
    modifier = gm(GlobalMagnitudePruningModifier, init_sparsity="__FROM_PARAM__")
    modifier.initialize(linear_net)
    assert modifier._init_sparsity == [0.5, 0.0]
    optimizer = torch.optim.SGD(linear_net.parameters(), lr=0.1)
    modifier.scheduled_update(linear_net, optimizer, 0.0, 4)
    assert modifier.applied_sparsity == [64 / 192] * 2
    assert modifier.progress_state()["overall_init_sparsity"] == 64 / 192
    assert sum(int((linear_net[i].weight == 0).sum()) for i in (0, 2)) == 64


def test_the_curve_follows_the_sparsities_by_position(linear_net):
    class Bare(BaseGradualPruningModifier):
        _get_mask_creator = MagnitudePruningModifier._get_mask_creator
        _get_scorer = MagnitudePruningModifier._get_scorer
        _mask_type = "unstructured"

    modifier = Bare(["0.weight"], 0.0, 0.8, "linear", start_epoch=0.0, end_epoch=4.0)
    assert modifier.inter_func == "linear"
    modifier.initialize(linear_net)
    assert modifier.get_applied_sparsity_for_epoch(1.0, 4) == [0.2]


def test_several_final_sparsities(sparsities):
    net = nn.ModuleDict({name: nn.Linear(10, 10) for name in ("a", "b", "c", "d")})
    wanted = {0.9: ["c.weight"], 0.5: ["re:[a-c].*weight"]}
    modifier = gm(final_sparsity=wanted, params=[])
    assert modifier.final_sparsity is wanted
    modifier.initialize(net)
    assert modifier.module_masks.layer_names == ["c", "a", "b"]
    modifier.check_mask_update(net, math.inf, 1)
    assert modifier.applied_sparsity == [0.9, 0.5, 0.5]
    found = {name: value for name, value in sparsities(net).items() if "weight" in name}
    assert found == {"a.weight": 0.5, "b.weight": 0.5, "c.weight": 0.9, "d.weight": 0.0}


def test_several_final_sparsities_exclude_params_and_one_ranking(linear_net):
    with pytest.raises(ValueError, match=r"params of GMPruningModifier must be empty \(\[\]\)"):
        gm(final_sparsity={0.5: ["re:.*"]}, params=["0.weight"])
    modifier = gm(final_sparsity={0.5: ["0.weight"]}, params=[], global_sparsity=True)
    with pytest.raises(ValueError, match="must be one number, as global_sparsity"):
        modifier.initialize(linear_net)
    with pytest.raises(ValueError, match="at least one sparsity"):
        gm(final_sparsity={}, params=[])
    with pytest.raises(TypeError, match="fraction"):
        gm(final_sparsity={1: ["0.weight"]}, params=[])


def test_empty_params_mean_all_prunable(linear_net):
    modifier = gm(params=[])
    modifier.initialize(linear_net)
    assert modifier.params == []
    assert modifier.module_masks.layer_names == ["0", "2"]


def test_the_schedule_can_be_asked_before_there_is_a_model():
    assert gm().get_applied_sparsity_for_epoch(0.0, 1) == [0.1]
    several = gm(final_sparsity={0.9: ["a"], 0.5: ["b"]}, params=[], init_sparsity="__FROM_PARAM__")
    assert several.get_applied_sparsity_for_epoch(4.0, 1) == [0.9, 0.5]
    assert several.get_applied_sparsity_for_epoch(0.0, 1) == [0.0, 0.0]


@pytest.mark.parametrize(("mask_type", "sparsity"), [("2:4", 0.5), ("1:4", 0.75)])
@pytest.mark.parametrize("cls", [MagnitudePruningModifier, GlobalMagnitudePruningModifier])
def test_n_of_m_masks_work_on_convolutions(conv_net, train, cls, mask_type, sparsity):
    modifier = gm(
        cls, mask_type=mask_type, init_sparsity=0.0, final_sparsity=sparsity, end_epoch=2.0
    )
    steps = train(conv_net, [modifier], steps=10, shape=(2, 4, 5, 5))
    zeros = [sum(int((conv_net[i].weight == 0).sum()) for i in (0, 2)) for _ in steps]
    total = sum(conv_net[i].weight.numel() for i in (0, 2))
    assert zeros == sorted(zeros)
    assert zeros[-1] == total * sparsity
    assert 0 < zeros[4] < zeros[-1]  # on the way there some groups are in order
    keep = 4 - round(4 * sparsity)
    for index in (0, 2):
        groups = (conv_net[index].weight != 0).movedim(1, -1).reshape(-1, 4).sum(1)
        assert set(groups.tolist()) == {keep}


def test_n_of_m_masks_have_one_sparsity(linear_net):
    with pytest.raises(ValueError, match=r"final_sparsity of .* must be 0\.5 with 2:4 masks"):
        gm(mask_type="2:4").initialize(linear_net)
    with pytest.raises(ValueError, match=r"init_sparsity of .* must be at most 0\.5 with 2:4"):
        gm(mask_type="tensorrt", init_sparsity=0.6, final_sparsity=0.5).initialize(linear_net)
    with pytest.raises(ValueError, match=r"'2:4' cannot mask weight: .*multiple of 4"):
        gm(mask_type="2:4", final_sparsity=0.5).initialize(nn.Linear(3, 4))


@pytest.mark.parametrize(
    ("mask_type", "unit"),
    [
        ("block4", (1, 4)),
        ([1, 4], (1, 4)),
        ("4x1", (4, 1)),
        ("2x2", (2, 2)),
        ("filter", (1, 8)),
        ("channel", (16, 1)),
    ],
)
@pytest.mark.parametrize("cls", ALL)
def test_units_go_as_a_whole(cls, mask_type, unit):
    layer = nn.Linear(8, 16)
    modifier = gm(cls, mask_type=mask_type, final_sparsity=0.5)
    modifier.initialize(layer)
    modifier.check_mask_update(layer, math.inf, 1)
    rows, cols = unit
    mask = modifier.module_masks.param_masks[0]
    blocks = mask.reshape(16 // rows, rows, 8 // cols, cols).sum((1, 3))
    assert set(blocks.flatten().tolist()) == {0.0, float(rows * cols)}
    assert mask.mean() == 0.5


def test_fields_freeze_when_initialised(linear_net):
    modifier = gm()
    modifier.final_sparsity = 0.7
    modifier.initialize(linear_net)
    for name, value in (("final_sparsity", 0.6), ("init_sparsity", 0.2), ("params", [])):
        with pytest.raises(AttributeError):
            setattr(modifier, name, value)
