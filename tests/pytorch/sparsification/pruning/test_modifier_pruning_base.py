from __future__ import annotations

import gc
import math
import weakref

import pytest
import torch
from torch import nn

from sparseml.optim import BaseModifier
from sparseml.pytorch.functional.budgets import Counts
from sparseml.pytorch.sparsification.pruning import (
    BasePruningModifier,
    MagnitudePruningModifier,
    MagnitudePruningParamsScorer,
    ModulePruningAnalyzer,
    UnstructuredPruningMaskCreator,
)
from sparseml.pytorch.utils import LambdaLogger

FIELDS = {
    "init_sparsity": 0.25,
    "final_sparsity": 0.75,
    "start_epoch": 1.0,
    "end_epoch": 3.0,
    "update_frequency": 0.5,
}


def magnitude(params="__ALL_PRUNABLE__", **fields):
    return MagnitudePruningModifier(params=params, **{**FIELDS, **fields})


class HalfPruning(BasePruningModifier):
    """The least that a pruning modifier has to say."""

    def _get_mask_creator(self, param_names, params):
        return UnstructuredPruningMaskCreator()

    def _get_scorer(self, params):
        return MagnitudePruningParamsScorer(params)

    def get_applied_sparsity_for_epoch(self, epoch, steps_per_epoch):
        return 0.5


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        BasePruningModifier(params="__ALL__")


def test_defaults_and_state_before_initialisation(linear_net):
    modifier = HalfPruning("__ALL_PRUNABLE__")
    assert (modifier.start_epoch, modifier.end_epoch, modifier.update_frequency) == (-1, -1, -1)
    assert not (modifier.leave_enabled or modifier.global_sparsity or modifier.allow_reintroduction)
    assert modifier.module_masks is modifier.analyzers is modifier.mask_creator is None
    assert modifier.scorer is modifier.applied_sparsity is None
    assert modifier.state_dict() == {}
    with pytest.raises(RuntimeError, match="load_state_dict was called before initialize"):
        modifier.load_state_dict({})
    modifier.initialize(linear_net)
    assert isinstance(modifier.scorer, MagnitudePruningParamsScorer)
    assert isinstance(modifier.mask_creator, UnstructuredPruningMaskCreator)
    assert [analyzer.tag for analyzer in modifier.analyzers] == ["0.weight", "2.weight"]
    assert isinstance(modifier.analyzers[0], ModulePruningAnalyzer)


def test_keywords_for_further_classes_can_be_filtered():
    class Next(BaseModifier):
        def __init__(self, colour="none", **kwargs):
            self.colour = colour
            super().__init__(**kwargs)

    class Both(HalfPruning, Next):
        pass

    chosen = Both("__ALL__", parent_class_kwarg_names=["colour"], colour="red", shape="round")
    assert chosen.colour == "red"
    with pytest.raises(ValueError, match="unknown arguments for Both: shape"):
        Both("__ALL__", colour="red", shape="round")


def test_masks_are_in_force_from_start_to_end(linear_net, sparsities, train):
    modifier = magnitude(leave_enabled=False)
    seen = {}
    for epoch in train(linear_net, [modifier], steps=18):
        seen[epoch] = (sparsities(linear_net)["0.weight"], modifier.module_masks.enabled)
    assert all(seen[epoch] == (0.0, False) for epoch in (0, 0.25, 0.5, 0.75))
    assert seen[1.0] == (0.25, True)
    assert seen[2.75][0] == pytest.approx(0.742, abs=0.01)
    assert seen[3.0][1] is False
    assert seen[4.0][0] < 0.1  # the weights have grown back
    assert modifier.applied_sparsity == [0.75, 0.75]


def test_sparsity_never_falls_while_enabled(linear_net, sparsities, train):
    optimizer = torch.optim.Adam(linear_net.parameters(), lr=0.1, weight_decay=0.1)
    steps = train(linear_net, [magnitude()], steps=20, optimizer=optimizer)
    found = [sparsities(linear_net)["0.weight"] for _ in steps]
    assert found == sorted(found)
    assert found[-1] == 0.75
    assert len(set(found)) == 6  # nothing, and five updates


def test_start_and_end_in_one_step(linear_net, sparsities, train):
    modifier = magnitude(start_epoch=1.0, end_epoch=1.0, leave_enabled=False)
    for _ in train(linear_net, [modifier], steps=5):
        pass
    assert modifier.started
    assert modifier.ended
    assert modifier.applied_sparsity == [0.75, 0.75]
    assert not modifier.module_masks.enabled


def test_one_shot_prunes_to_the_end_and_leaves_nothing_behind(linear_net, sparsities):
    modifier = magnitude()
    modifier.apply(linear_net)
    assert sparsities(linear_net) == {
        "0.weight": 0.75,
        "0.bias": 0,
        "2.weight": 0.75,
        "2.bias": 0,
    }
    assert not modifier.initialized
    assert modifier.module_masks is None
    for layer in linear_net:
        assert not layer._forward_pre_hooks
        assert not getattr(layer, "weight", torch.ones(1))._post_accumulate_grad_hooks
    # once more, as from a new recipe
    fresh = nn.Linear(8, 16)
    modifier.apply(fresh)
    assert sparsities(fresh)["weight"] == 0.75


def test_a_finite_epoch_past_the_start_waits_for_the_first_update(linear_net, sparsities):
    modifier = magnitude()
    modifier.initialize(linear_net, epoch=2.0)
    assert set(sparsities(linear_net).values()) == {0.0}
    optimizer = torch.optim.SGD(linear_net.parameters(), lr=0.1)
    modifier.scheduled_update(linear_net, optimizer, 2.0, 4)
    assert sparsities(linear_net)["0.weight"] > 0.6


def test_one_shot_takes_whatever_a_manager_hands_on(linear_net, sparsities):
    magnitude().apply(linear_net, steps_per_epoch=4, grad_sampler={}, distillation_teacher=None)
    assert sparsities(linear_net)["0.weight"] == 0.75


def test_is_oneshot():
    modifier = magnitude()
    assert modifier.is_oneshot(math.inf, 1)
    assert not modifier.is_oneshot(1.0, 1)
    assert not modifier.is_oneshot(math.inf, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
        lambda params: torch.optim.AdamW(params, lr=0.1, amsgrad=True),
    ],
)
def test_optimizer_state_of_changed_entries_is_cleared(linear_net, make):
    modifier = magnitude(["0.weight"])
    modifier.initialize(linear_net)
    optimizer = make(linear_net.parameters())

    def backward():
        optimizer.zero_grad()
        linear_net(torch.randn(6, 8)).pow(2).mean().backward()

    backward()
    optimizer.step()
    weight = linear_net[0].weight
    backward()
    modifier.scheduled_update(linear_net, optimizer, 1.0, 4)
    pruned = weight == 0
    tensors = [
        value
        for value in optimizer.state[weight].values()
        if isinstance(value, torch.Tensor) and value.shape == weight.shape
    ]
    assert tensors
    for value in tensors:
        assert value[pruned].abs().max() == 0
        assert value[~pruned].abs().max() > 0
    # the gradient of this very step was computed before the masks
    assert weight.grad[pruned].abs().max() == 0
    untouched = optimizer.state[linear_net[2].weight]
    assert all(v.abs().max() > 0 for v in untouched.values() if isinstance(v, torch.Tensor))


def test_hooks_for_new_pruners_are_called_in_order(linear_net):
    calls = []

    class Traced(BasePruningModifier):
        def get_applied_sparsity_for_epoch(self, epoch, steps_per_epoch):
            return 0.5

        def initialize_extras(self, module):
            calls.append(("extras", self.module_masks is not None))

        def _before_mask_update(self, module, target):
            calls.append(("before", target, module[0].weight.abs().min().item() > 0))

        def _get_budget(self):
            return Counts((1, 1))

    Traced("__ALL_PRUNABLE__").apply(linear_net)
    assert calls == [("extras", True), ("before", 0.5, True)]
    assert int((linear_net[0].weight == 0).sum()) == 1


def test_recomputation_takes_intermediate_targets(linear_net, sparsities):
    modifier = HalfPruning("__ALL_PRUNABLE__")
    modifier.initialize(linear_net)
    for target in (0.25, 0.375):
        modifier.check_mask_update(linear_net, math.inf, 1, recomputation_sparsity=target)
        assert sparsities(linear_net)["0.weight"] == target
        assert modifier.applied_sparsity == target


def test_state_is_masks_by_name_and_is_applied_at_once(linear_net, sparsities):
    modifier = magnitude()
    modifier.initialize(linear_net)
    modifier.check_mask_update(linear_net, math.inf, 1)
    state = modifier.state_dict()
    assert list(state) == ["0.weight.sparsity_mask", "2.weight.sparsity_mask"]
    assert state["0.weight.sparsity_mask"].shape == (16, 8)
    dense = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    other = magnitude()
    other.initialize(dense)
    other.load_state_dict(state)
    assert sparsities(dense)["0.weight"] == 0.75
    for name, mask in other.state_dict().items():
        assert torch.equal(mask, state[name])


def test_state_that_does_not_fit_is_refused(linear_net):
    modifier = magnitude(["0.weight"])
    modifier.initialize(linear_net)
    mask = torch.zeros(16, 8)
    foreign = {"0.weight.sparsity_mask": mask, "9.weight.sparsity_mask": mask}
    with pytest.raises(IndexError, match=r"missing none, unknown 9.weight.sparsity_mask"):
        modifier.load_state_dict(foreign)
    with pytest.raises(IndexError, match=r"missing 0.weight.sparsity_mask"):
        modifier.load_state_dict({})
    modifier.load_state_dict({}, strict=False)
    assert linear_net[0].weight.abs().min() > 0
    modifier.load_state_dict(foreign, strict=False)
    assert linear_net[0].weight.abs().max() == 0


def test_masks_that_were_lifted_are_not_in_the_state(linear_net, train):
    modifier = magnitude(leave_enabled=False)
    for _ in train(linear_net, [modifier], steps=14):
        pass
    assert modifier.ended
    assert all(mask.min() == 1 for mask in modifier.state_dict().values())


def test_sparsity_is_logged_per_parameter(linear_net, train):
    logged = []
    modifier = magnitude(["re:.*weight"])
    modifier.initialize(
        linear_net, loggers=[LambdaLogger(lambda **entry: bool(logged.append(entry)))]
    )
    optimizer = torch.optim.SGD(linear_net.parameters(), lr=0.1)
    modifier.scheduled_update(linear_net, optimizer, 1.0, 4)
    modifier.scheduled_log_update(linear_net, optimizer, 1.0, 4)
    scalars = {entry["tag"]: (entry["value"], entry["step"]) for entry in logged}
    assert scalars["ParamPruning/0.weight"] == (0.25, 4)
    assert scalars["ParamPruning/2.weight"] == (0.25, 4)


def test_initialising_again_moves_to_the_new_model(linear_net, sparsities):
    modifier = magnitude()
    modifier.initialize(linear_net)
    modifier.check_mask_update(linear_net, math.inf, 1)
    other = nn.Linear(8, 16)
    modifier.initialize(other)
    assert modifier.module_masks.layers == [other]
    linear_net(torch.randn(2, 8)).sum().backward()
    assert int((linear_net[0].weight.grad == 0).sum()) < 64  # no longer masked
    assert sparsities(linear_net)["0.weight"] == 0.75


def test_a_modifier_that_goes_away_takes_its_hooks_along(linear_net):
    modifier = magnitude()
    modifier.initialize(linear_net)
    modifier.check_mask_update(linear_net, math.inf, 1)
    gone = weakref.ref(modifier)
    del modifier
    gc.collect()
    assert gone() is None
    linear_net(torch.randn(2, 8)).sum().backward()
    assert int((linear_net[2].weight.grad == 0).sum()) < 32


def test_wrapped_models_are_pruned_under_their_own_names(linear_net):
    wrapped = nn.DataParallel(linear_net)
    modifier = magnitude(["0.weight", "re:2.*weight"])
    modifier.initialize(wrapped)
    assert list(modifier.state_dict()) == ["0.weight.sparsity_mask", "2.weight.sparsity_mask"]
