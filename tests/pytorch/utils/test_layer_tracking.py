"""Seeing what goes into a layer and what comes out of it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from sparseml.pytorch.utils.layer_tracking import ASLayerTracker


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Bilinear(2, 3, 4)


def test_keeps_inputs_and_output_of_the_last_pass(layer):
    tracker = ASLayerTracker(layer, track_input=True, track_output=True)
    inputs = torch.ones(1, 2), torch.ones(1, 3)
    layer(*inputs)
    assert tracker.tracked_input is None
    tracker.enable()
    tracker.enable()
    layer(inputs[0] + 1, inputs[1])
    output = layer(*inputs)
    assert all(a is b for a, b in zip(tracker.tracked_input, inputs, strict=True))
    assert tracker.tracked_output is output
    tracker.clear()
    assert tracker.tracked_input is None and tracker.tracked_output is None
    layer(*inputs)
    tracker.disable()
    assert tracker.tracked_output is None and not layer._forward_hooks
    layer(*inputs)
    assert tracker.tracked_output is None


def test_inputs_given_by_keyword(layer):
    tracker = ASLayerTracker(layer, track_input=True, track_output=True)
    tracker.enable()
    first, second = torch.ones(1, 2), torch.ones(1, 3)
    output = layer(input2=second, input1=first)
    assert [id(x) for x in tracker.tracked_input] == [id(first), id(second)]
    assert tracker.tracked_output is output
    layer(first, input2=second)
    assert len(tracker.tracked_input) == 1 and tracker.tracked_input[0] is first


def test_only_what_is_asked_for(layer):
    tracker = ASLayerTracker(layer, track_output=True)
    tracker.enable()
    layer(torch.ones(1, 2), torch.ones(1, 3))
    assert tracker.tracked_input is None and tracker.tracked_output is not None


def test_functions_see_gradients(layer):
    tracker = ASLayerTracker(
        layer,
        track_input=True,
        track_output=True,
        input_func=lambda inputs: len(inputs),
        output_func=lambda output: output.sum(),
    )
    tracker.enable()
    layer(torch.ones(1, 2), torch.ones(1, 3))
    assert tracker.tracked_input == 2
    tracker.tracked_output.backward()
    assert torch.equal(layer.bias.grad, torch.ones(4))


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_copies_of_the_layer_are_not_watched(layer, twin):
    tracker = ASLayerTracker(layer, track_output=True)
    tracker.enable()
    output = layer(torch.ones(1, 2), torch.ones(1, 3))
    copied = twin(layer)
    assert torch.equal(copied(torch.ones(1, 2), torch.ones(1, 3)), output)
    assert tracker.tracked_output is output


@pytest.mark.parametrize("layer", [nn.ReLU(inplace=True), nn.Sequential(nn.ReLU(inplace=True))])
def test_inputs_are_seen_before_the_layer_changes_them(layer):
    x = torch.tensor([1.0, -2.0, -3.0], requires_grad=True)
    kept = ASLayerTracker(layer, track_input=True)
    penalty = ASLayerTracker(
        layer, track_input=True, input_func=lambda inputs: (inputs[0] ** 2).sum()
    )
    kept.enable()
    penalty.enable()
    layer(x * 1.0)
    assert kept.tracked_input[0].tolist() == [1.0, -2.0, -3.0]
    penalty.tracked_input.backward()
    assert x.grad.tolist() == [2.0, -4.0, -6.0]
    kept.disable()
    penalty.disable()
    assert not layer._forward_pre_hooks
