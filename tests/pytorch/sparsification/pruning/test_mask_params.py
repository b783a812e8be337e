from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparseml.pytorch.sparsification.pruning import (
    MagnitudePruningParamsScorer,
    ModuleParamPruningMask,
    PruningParamsScorer,
    UnstructuredPruningMaskCreator,
)


def holder(*layers, **kwargs):
    params = [layer.weight for layer in layers]
    kwargs.setdefault("scorer", MagnitudePruningParamsScorer(params))
    return ModuleParamPruningMask(list(layers), UnstructuredPruningMaskCreator(), **kwargs)


def grad_of(layer, batches=1):
    layer.zero_grad()
    for _ in range(batches):
        layer(torch.randn(5, layer.in_features)).pow(2).sum().backward()
    return layer.weight.grad.clone()


def test_masks_start_as_ones_and_do_nothing():
    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    masks = holder(layer)
    assert len(masks) == 1
    assert not masks.enabled
    assert masks.param_masks[0].min() == 1
    masks.set_param_masks([torch.zeros(3, 4)])
    assert torch.equal(layer.weight, before)
    assert grad_of(layer).abs().min() > 0


def test_names_and_settings():
    layers = [nn.Linear(2, 2), nn.BatchNorm1d(2)]
    masks = ModuleParamPruningMask(
        layers,
        UnstructuredPruningMaskCreator(),
        None,
        param_names=["weight", "bias"],
        layer_names=["fc", "norm.1"],
        global_sparsity=True,
        track_grad_mom=0.9,
    )
    assert masks.names == ["fc.weight.sparsity_mask", "norm.1.bias.sparsity_mask"]
    assert masks.layers == layers
    assert masks.param_names == ["weight", "bias"]
    assert masks.layer_names == ["fc", "norm.1"]
    assert masks.global_sparsity
    assert masks.track_grad_mom == 0.9
    assert not (masks.store_init or masks.store_unmasked or masks.allow_reintroduction)
    assert holder(layers[0], allow_reintroduction=True).store_unmasked


@pytest.mark.parametrize("forward_hooks", [True, False])
def test_enabled_masks_hold_gradients_and_weights(forward_hooks):
    layer = nn.Linear(6, 4)
    masks = holder(layer, forward_hooks=forward_hooks)
    masks.enabled = True
    masks.update_param_masks(0.5)
    pruned = masks.param_masks[0] == 0
    assert int(pruned.sum()) == 12
    assert layer.weight[pruned].abs().max() == 0
    assert grad_of(layer, batches=2)[pruned].abs().max() == 0
    assert grad_of(layer)[~pruned].abs().min() > 0
    layer.weight.data.add_(1.0)
    if forward_hooks:
        layer(torch.randn(1, 6))
    else:
        masks.apply()
    assert layer.weight[pruned].abs().max() == 0
    masks.enabled = False
    assert grad_of(layer)[pruned].abs().max() > 0
    layer.weight.data.fill_(1.0)
    layer(torch.randn(1, 6))
    assert layer.weight.min() == 1


def test_forward_hooks_are_left_out_on_request():
    layer = nn.Linear(6, 4)
    masks = holder(layer, forward_hooks=False)
    masks.enabled = True
    assert not layer._forward_pre_hooks
    assert not layer._forward_hooks
    assert not layer._backward_hooks


def test_updates_return_what_changed():
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    masks = holder(layer)
    masks.enabled = True
    assert masks.update_param_masks(0.5)[0].tolist() == [[-1, -1], [0, 0]]
    assert masks.update_param_masks(0.75)[0].tolist() == [[0, 0], [-1, 0]]
    assert masks.set_param_masks([torch.tensor([[1.0, 0], [0, 1]])])[0].tolist() == [[1, 0], [0, 0]]
    assert layer.weight.tolist() == [[0, 0], [0, 4]]


class RecordingScorer(PruningParamsScorer):
    """Notes what it is told, and the weights at that moment."""

    def __init__(self, params):
        super().__init__(params)
        self.seen = []

    def score_parameters(self):
        return [param.detach().abs() for param in self._params]

    def mask_update(self, masks, mask_diffs):
        self.seen.append(
            (masks[0].clone(), mask_diffs[0].clone(), self._params[0].detach().clone())
        )

    def on_pruning_end(self):
        self.seen.append("end")


def test_the_scorer_sees_newly_pruned_weights_with_their_values():
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    scorer = RecordingScorer([layer.weight])
    masks = holder(layer, scorer=scorer)
    masks.enabled = True
    masks.update_param_masks(0.5)
    mask, diff, weights = scorer.seen[0]
    assert mask.tolist() == [[0, 0], [1, 1]]
    assert diff.tolist() == [[-1, -1], [0, 0]]
    assert weights.tolist() == [[1, 2], [3, 4]]
    assert scorer._last_applied_sparsity == 0.5
    masks.pruning_end(leave_enabled=True)
    assert scorer.seen[-1] == "end"
    assert masks.enabled
    masks.pruning_end(leave_enabled=False)
    assert not masks.enabled


def test_without_a_scorer_the_values_are_the_scores():
    layer = nn.Linear(2, 1)
    layer.weight.data = torch.tensor([[-5.0, 1.0]])
    masks = holder(layer, scorer=None)
    masks.enabled = True
    masks.update_param_masks(0.5)
    assert layer.weight.tolist() == [[0, 1]]


def test_reintroduction_trains_what_is_masked():
    layer, plain = nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)
    plain.weight.data.copy_(layer.weight)
    masks = holder(layer, allow_reintroduction=True)
    masks.enabled = True
    masks.update_param_masks(0.5)
    pruned = masks.param_masks[0] == 0
    assert torch.equal(masks.params_unmasked[0], plain.weight)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    inputs = torch.randn(5, 6)
    layer(inputs).pow(2).sum().backward()
    # the gradient is that of the masked weights, for all weights
    masked = plain.weight.detach() * ~pruned
    expected = torch.autograd.functional.jacobian(lambda w: (inputs @ w.t()).pow(2).sum(), masked)
    assert torch.allclose(layer.weight.grad, expected, rtol=1e-4, atol=1e-5)
    optimizer.step()
    assert torch.allclose(layer.weight, plain.weight - 0.1 * expected, rtol=1e-4, atol=1e-5)
    layer(inputs)
    assert layer.weight[pruned].abs().max() == 0
    assert masks.params_unmasked[0][pruned].abs().min() > 0
    masks.disable_reintroduction()
    assert layer.weight[pruned].abs().max() == 0
    assert grad_of(layer)[pruned].abs().max() == 0


def test_reintroduction_without_forward_hooks_is_driven_by_the_owner():
    layer = nn.Linear(6, 4)
    before = layer.weight.detach().clone()
    masks = holder(layer, allow_reintroduction=True, forward_hooks=False)
    masks.enabled = True
    masks.update_param_masks(0.5)
    grad_of(layer, batches=3)  # accumulating over masked weights
    assert int((layer.weight == 0).sum()) == 12
    masks.restore_unmasked()
    assert torch.equal(layer.weight, before)
    masks.apply()
    assert int((layer.weight == 0).sum()) == 12
    # other masks are chosen from all weights and not from the masked ones
    masks.set_param_masks([1 - masks.param_masks[0]])
    masks.restore_unmasked()
    assert torch.equal(layer.weight, before)


def test_unmasked_values_follow_new_masks():
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    masks = holder(layer, store_unmasked=True)
    masks.enabled = True
    masks.set_param_masks([torch.tensor([[0.0, 1], [1, 1]])])
    assert masks.params_unmasked[0].tolist() == [[1, 2], [3, 4]]
    masks.set_param_masks([torch.tensor([[0.0, 0], [1, 1]])])
    assert masks.params_unmasked[0].tolist() == [[1, 2], [3, 4]]
    masks.set_param_masks([torch.tensor([[1.0, 0], [1, 1]])])
    assert layer.weight.tolist() == [[0, 0], [3, 4]]  # it comes back as zero
    assert masks.params_unmasked[0].tolist() == [[0, 2], [3, 4]]
    assert holder(layer).params_unmasked == [None]


def test_masks_of_gradients_only_leave_weights_alone():
    layer = nn.Linear(4, 4)
    before = layer.weight.detach().clone()
    masks = holder(layer, mask_gradients_only=True)
    masks.enabled = True
    masks.update_param_masks(0.5)
    layer(torch.randn(1, 4))
    assert torch.equal(layer.weight, before)
    assert grad_of(layer)[masks.param_masks[0] == 0].abs().max() == 0


def test_values_can_be_set_and_reset():
    layer = nn.Linear(2, 2)
    initial = layer.weight.detach().clone()
    masks = holder(layer, store_init=True)
    masks.enabled = True
    masks.set_param_masks([torch.tensor([[0.0, 1], [1, 1]])])
    masks.set_param_data(torch.full((2, 2), 7.0), 0)
    assert layer.weight.tolist() == [[0, 7], [7, 7]]
    assert masks.params_data[0].tolist() == [[0, 7], [7, 7]]
    assert torch.equal(masks.params_init[0], initial)
    masks.reset()
    assert torch.equal(layer.weight, initial * masks.param_masks[0])
    with pytest.raises(RuntimeError, match="store_init=True"):
        holder(layer).reset()


@pytest.mark.parametrize("value", [None, torch.ones(3), torch.ones(4, 2)])
def test_values_that_do_not_fit_are_refused(value):
    masks = holder(nn.Linear(4, 3), layer_names=["fc"])
    with pytest.raises(ValueError, match=r"fc\.weight has shape \(3, 4\), found"):
        masks.set_param_data(value, 0)
    with pytest.raises(ValueError, match=r"fc\.weight has shape \(3, 4\), found"):
        masks.set_param_masks([value])
    with pytest.raises(ValueError, match="1 masks are needed, found 2"):
        masks.set_param_masks([torch.ones(3, 4)] * 2)


def test_layers_without_the_parameter_are_refused():
    with pytest.raises(RuntimeError, match=r"ReLU has no parameter 'weight', .* '1\.weight'"):
        ModuleParamPruningMask(
            [nn.Linear(2, 2), nn.ReLU()], UnstructuredPruningMaskCreator(), scorer=None
        )
    with pytest.raises(ValueError, match="param_names must hold one name for each of 1 layers"):
        ModuleParamPruningMask(
            [nn.Linear(2, 2)], UnstructuredPruningMaskCreator(), None, ["weight", "bias"]
        )


def test_scores_that_are_no_numbers_name_the_parameter():
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    masks = holder(*layers, layer_names=["a", "b.c"])
    layers[1].weight.data[0, 1] = float("nan")
    with pytest.raises(ValueError, match=r"weights of b\.c\.weight: 1 of 4 values are NaN"):
        masks.update_param_masks(0.5)


def test_masks_follow_dtype_and_new_parameter_objects():
    layer = nn.Linear(6, 4)
    masks = holder(layer, forward_hooks=False)
    masks.enabled = True
    masks.update_param_masks(0.5)
    layer.double()
    assert masks.param_masks[0].dtype == torch.float64
    layer.weight = nn.Parameter(torch.ones(4, 6, dtype=torch.float64))
    masks.apply()
    assert int((layer.weight == 0).sum()) == 12
    layer(torch.randn(5, 6, dtype=torch.float64)).sum().backward()
    assert int((layer.weight.grad == 0).sum()) == 12
    masks.update_param_masks(0.75)  # the scorer looks at the new object, too
    assert int((layer.weight == 0).sum()) == 18


def test_a_layer_made_smaller_gets_fresh_masks_and_a_lower_target():
    layer = nn.Linear(10, 10)
    masks = holder(layer)
    masks.enabled = True
    masks.update_param_masks(0.5)
    layer.weight = nn.Parameter(torch.randn(6, 10))  # 40 % of the weights are gone
    assert masks.param_masks[0].shape == (6, 10)
    assert masks.param_masks[0].min() == 1
    masks.update_param_masks(0.7)
    assert int((layer.weight == 0).sum()) == 30  # together with the 40: 70 of 100
    masks.update_param_masks(0.7, adjust_target_sparsity_for_thinning=False)
    assert int((layer.weight == 0).sum()) == 42


def test_frozen_weights_are_masked_and_their_gradients_once_they_have_some():
    layer = nn.Linear(6, 4)
    layer.weight.requires_grad_(False)
    masks = holder(layer, forward_hooks=False)
    masks.enabled = True
    masks.update_param_masks(0.5)
    assert int((layer.weight == 0).sum()) == 12
    layer.weight.requires_grad_(True)
    masks.apply()
    assert int((grad_of(layer) == 0).sum()) == 12


def test_gradient_momentum():
    layer = nn.Linear(3, 2)
    masks = holder(layer, track_grad_mom=0.5)
    masks.enabled = True
    assert masks.params_grad == [None]
    first = grad_of(layer)
    assert torch.allclose(masks.params_grad[0], first / 2)
    second = grad_of(layer)
    assert torch.allclose(masks.params_grad[0], first / 4 + second / 2)


@pytest.mark.parametrize("forward_hooks", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_copies_work_on_their_own(forward_hooks, enabled):
    layer = nn.Linear(6, 4)
    masks = holder(layer, forward_hooks=forward_hooks)
    masks.enabled = enabled
    masks.set_param_masks([torch.zeros(4, 6)])
    twin = copy.deepcopy(masks)
    copied = twin.layers[0]
    assert copied is not layer
    assert twin.enabled == enabled
    twin.set_param_masks([torch.ones(4, 6)])
    twin.enabled = True
    twin.set_param_masks([torch.tensor([1.0, 0.0]).repeat(4, 3)])
    copied.weight.data.fill_(1.0)
    twin.apply()
    assert int((grad_of(copied) == 0).sum()) == 12
    assert masks.param_masks[0].max() == 0
    twin.enabled = False
    assert not copied._forward_pre_hooks
    assert int((grad_of(copied) == 0).sum()) == 0
    assert bool(layer._forward_pre_hooks) == (forward_hooks and enabled)


def test_a_copied_model_stays_masked_by_its_own_hooks():
    layer = nn.Linear(6, 4)
    masks = holder(layer)
    masks.enabled = True
    masks.update_param_masks(0.5)
    model = copy.deepcopy(nn.Sequential(layer))
    model[0].weight.data.fill_(1.0)
    model(torch.randn(1, 6))
    assert int((model[0].weight == 0).sum()) == 12
    masks.enabled = False
    model[0].weight.data.fill_(1.0)
    model(torch.randn(1, 6))
    assert int((model[0].weight == 0).sum()) == 12


def test_a_model_copied_without_forward_hooks_is_plain():
    layer = nn.Linear(6, 4)
    masks = holder(layer, forward_hooks=False)
    masks.enabled = True
    masks.update_param_masks(0.5)
    plain = copy.deepcopy(layer)
    assert grad_of(plain).abs().min() > 0
    assert int((plain.weight == 0).sum()) == 12
    assert set(plain.state_dict()) == {"weight", "bias"}


def test_progress_with_reintroduction_survives_a_file(tmp_path):
    layer = nn.Linear(6, 4)
    masks = holder(layer, allow_reintroduction=True, forward_hooks=False, track_grad_mom=0.5)
    masks.enabled = True
    masks.update_param_masks(0.5)
    grad_of(layer)
    torch.save([masks.progress_state(), masks.param_masks], tmp_path / "state.pt")
    twin_layer = copy.deepcopy(layer)
    twin = holder(twin_layer, allow_reintroduction=True, forward_hooks=False, track_grad_mom=0.5)
    progress, own_masks = torch.load(tmp_path / "state.pt", weights_only=True)
    twin.restore_param_masks(own_masks)
    twin.load_progress_state(progress)
    assert twin.enabled
    assert torch.equal(twin.params_grad[0], masks.params_grad[0])
    for each in (masks, twin):
        each.restore_unmasked()
    assert torch.equal(twin_layer.weight, layer.weight)
    assert twin_layer.weight.abs().min() > 0
