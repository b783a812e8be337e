from __future__ import annotations

import logging

import pytest
import torch

from sparseml.pytorch.functional.second_order.blocks import block_layout
from sparseml.pytorch.functional.second_order.elimination import eliminate
from sparseml.pytorch.functional.second_order.fisher import BlockFisher
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import Modifier
from sparseml.pytorch.sparsification.pruning import CAPruningModifier, OBSPruningModifier

FIELDS = {"params": ["re:.*weight"], "init_sparsity": 0.5, "final_sparsity": 0.5}
FIELDS |= {"start_epoch": 0.0, "end_epoch": 4.0, "update_frequency": 1.0}
EXACT = {**FIELDS, "damp": 1e-3, "fisher_block_size": 8, "fisher_dtype": "float64"}


def best_rest(weights, fisher, gone):
    """Minimise the quadratic loss over the weights that stay; and that loss."""
    new = torch.where(gone, 0.0, weights)
    new[~gone] += torch.linalg.solve(
        fisher[~gone][:, ~gone], fisher[~gone][:, gone] @ weights[gone]
    )
    change = new - weights
    return new, float(change @ fisher @ change / 2)


def greedy(weights, fisher, live):
    """Brute force over the live weights: order, cumulative losses."""
    order, losses, gone = [], [], torch.zeros_like(live)
    inner = fisher[live][:, live]
    places = live.nonzero()[:, 0].tolist()
    for _ in places:
        trials = []
        for candidate in set(places) - set(order):
            trial = gone.clone()
            trial[candidate] = True
            trials.append((best_rest(weights[live], inner, trial[live])[1], candidate))
        loss, best = min(trials)
        order.append(best)
        losses.append(loss)
        gone[best] = True
    return order, losses


def oracle(weights, gradients, count, damp=1e-3, size=8):
    """What weights (one tensor, of whole blocks) become when ``count`` of them are zero."""
    blocks, grads = weights.reshape(-1, size), gradients.reshape(len(gradients), -1, size)
    live = blocks != 0
    steps = []
    for r, block in enumerate(blocks):
        fisher = grads[:, r].T @ grads[:, r] / len(grads) + damp * torch.eye(size).double()
        found = greedy(block, fisher, live[r])
        steps += [(loss, r, place) for place, loss in zip(*found, strict=True)]
    gone = torch.zeros_like(live)
    for _, r, place in sorted(steps)[: count - int((~live).sum())]:
        gone[r, place] = True
    new = []
    for r, block in enumerate(blocks):
        fisher = grads[:, r].T @ grads[:, r] / len(grads) + damp * torch.eye(size).double()
        on = live[r]
        rest = torch.zeros_like(block)
        rest[on] = best_rest(block[on], fisher[on][:, on], gone[r][on])[0]
        new.append(rest)
    return torch.stack(new).reshape(weights.shape)


def zeros(net):
    return sum(int((param == 0).sum()) for param in net.parameters())


def test_golden_vector(dots, feeding):
    fisher = torch.tensor(
        [[2, 0.5, 0, 0], [0.5, 1, 0.2, 0], [0, 0.2, 1.5, 0.3], [0, 0, 0.3, 0.8]]
    ).double()
    net = dots((4,))
    net.layers[0].weight.data = torch.tensor([1, -0.5, 2, 0.25]).double()
    root = torch.linalg.cholesky(fisher - 1e-3 * torch.eye(4))
    gradients = [[2 * column] for column in root.T]
    modifier = CAPruningModifier(**{**EXACT, "num_grads": 4})
    modifier.apply(net, grad_sampler=feeding(gradients))
    expected = torch.tensor([0.875, 0, 1.983333, 0]).double()
    torch.testing.assert_close(net.layers[0].weight.data, expected, rtol=0, atol=2e-6)
    weight = torch.tensor([1, -0.5, 2, 0.25]).double()
    estimate = BlockFisher(block_layout(weight.shape, 4), dtype=torch.float64)
    estimate.accumulate_blocks(torch.stack([group[0] for group in gradients]).unsqueeze(1))
    inverse = estimate.factor(1e-3, torch.ones(4, dtype=torch.bool))
    scores = torch.tensor([[0.899792, 0.134167, 3.85, 0.023066]]).double()
    found = eliminate(inverse.blocks_of(weight), inverse.inverse, inverse.live)
    torch.testing.assert_close(found.scores(), scores, rtol=0, atol=2e-6)


@pytest.mark.parametrize("together", [True, False])
def test_gradual_steps_match_a_fresh_oracle_each(dots, feeding, together):
    net = dots((6, 8), (4, 4))
    gradients = net.gradients(40)
    modifier = CAPruningModifier(**EXACT, num_grads=40, global_sparsity=together)
    modifier.initialize(net, grad_sampler=feeding(gradients))
    for step, sparsity in enumerate([0.0, 0.5, 0.75, 0.9]):
        before = [layer.weight.data.clone() for layer in net.layers]
        modifier.check_mask_update(net, float(step), 4, recomputation_sparsity=sparsity)
        stacks = [torch.stack([group[i] for group in gradients]) for i in (0, 1)]
        if together:
            weights = torch.cat([w.flatten() for w in before])
            grads = torch.cat([g.flatten(1) for g in stacks], dim=1)
            found = oracle(weights, grads, round(64 * sparsity)).split([48, 16])
            expected = [part.view_as(w) for part, w in zip(found, before, strict=True)]
            assert zeros(net) == round(64 * sparsity)
        else:
            expected = [
                oracle(w, g, round(w.numel() * sparsity))
                for w, g in zip(before, stacks, strict=True)
            ]
        for layer, weight, mask in zip(
            net.layers, expected, modifier.module_masks.param_masks, strict=True
        ):
            torch.testing.assert_close(layer.weight.data, weight, rtol=1e-7, atol=1e-9)
            assert torch.equal(mask != 0, weight != 0)


def test_a_second_modifier_goes_on_from_the_first(dots, feeding):
    net = dots((8, 8))
    sampler = feeding(net.gradients(30))
    for sparsity in (0.4, 0.6):
        before = net.layers[0].weight.data.clone()
        fields = {**EXACT, "init_sparsity": sparsity, "final_sparsity": sparsity}
        CAPruningModifier(**fields, num_grads=30).apply(net, grad_sampler=sampler)
        after = net.layers[0].weight.data
        assert bool(after.isfinite().all()) and bool((after[before == 0] == 0).all())
        assert zeros(net) == round(64 * sparsity)


def test_below_the_present_sparsity_nothing_happens(dots, feeding):
    net = dots((8, 8))
    net.layers[0].weight.data[:6] = 0.0
    before = net.layers[0].weight.data.clone()
    modifier = CAPruningModifier(**EXACT, num_grads=3)
    modifier.initialize(net, grad_sampler=feeding(net.gradients(3)))
    modifier.check_mask_update(net, 0.0, 4, recomputation_sparsity=0.5)
    assert torch.equal(net.layers[0].weight.data, before)
    assert int(modifier.module_masks.param_masks[0].sum()) == 16


@pytest.mark.parametrize("layout", ["padded", "row"])
@pytest.mark.parametrize(("mask_type", "group"), [("2:4", 4), ("tensorrt", 4), ("1:2", 2)])
def test_n_of_m_is_exact_in_every_group(conv_net, images, mask_type, group, layout):
    conv_net.append(torch.nn.Linear(72, 12))
    fields = {**FIELDS, "damp": 1e-4, "fisher_block_size": 12, "num_grads": 12}
    modifier = CAPruningModifier(**fields, mask_type=mask_type, fisher_block_layout=layout)
    modifier.apply(conv_net, grad_sampler=images)
    for name, param in conv_net.named_parameters():
        if name.endswith("weight"):
            groups = param.movedim(1, -1).reshape(-1, group)
            assert bool(((groups != 0).sum(1) == group // 2).all()), name


@pytest.mark.parametrize("mask_type", ["block4", "1x4", [1, 4]])
def test_runs_of_four_go_together(conv_net, images, mask_type):
    fields = {**FIELDS, "damp": 1e-4, "fisher_block_size": 10, "num_grads": 12}
    CAPruningModifier(**fields, mask_type=mask_type).apply(conv_net, grad_sampler=images)
    weights = [conv_net[0].weight, conv_net[2].weight]
    runs = torch.cat([weight.movedim(1, -1).reshape(-1, 4) != 0 for weight in weights])
    kept = runs.sum(1)
    assert bool(((kept == 0) | (kept == 4)).all())
    assert int((kept == 0).sum()) == round(len(kept) * 0.5)


def test_n_of_m_is_reached_gradually(dots, feeding):
    net = dots((4, 16))
    modifier = CAPruningModifier(**EXACT, num_grads=20, mask_type="2:4", global_sparsity=False)
    modifier.initialize(net, grad_sampler=feeding(net.gradients(20)))
    gone = torch.zeros(4, 16, dtype=torch.bool)
    for step, sparsity in enumerate([0.25, 0.375, 0.5]):
        modifier.check_mask_update(net, float(step), 4, recomputation_sparsity=sparsity)
        now = net.layers[0].weight.data == 0
        assert int(now.sum()) == round(64 * sparsity) and bool(now[gone].all())
        gone = now
    assert bool((gone.view(-1, 4).sum(1) == 2).all())


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("folder", [False, True])
def test_groups_give_what_all_at_once_gives(dots, feeding, caplog, tmp_path, together, folder):
    caplog.set_level(logging.INFO)
    outcomes = []
    for memory in (None, "3kB", "640B"):
        torch.manual_seed(0)
        net = dots((6, 8), (8, 8), (40,))
        fields = {**EXACT, "num_grads": 20, "global_sparsity": together, "fisher_memory": memory}
        where = str(tmp_path / "aside") if folder else None
        sampler = feeding(net.gradients(20))
        CAPruningModifier(**fields, traces_backup_dir=where).apply(net, grad_sampler=sampler)
        outcomes.append([param.data for param in net.parameters()])
    for other in outcomes[1:]:
        torch.testing.assert_close(other, outcomes[0])
    assert "in 1 group(s)" in caplog.text and "in 19 group(s)" in caplog.text
    assert not folder or not list((tmp_path / "aside").iterdir())


def test_too_little_memory_is_said_before_anything_happens(dots, feeding, monkeypatch):
    net = dots((64, 64))
    before = net.layers[0].weight.data.clone()
    monkeypatch.setattr(
        "sparseml.pytorch.sparsification.pruning.methods.fisher_passes.free_bytes",
        lambda device: 1000,
    )
    modifier = CAPruningModifier(**EXACT)
    with pytest.raises(RuntimeError, match=r"needs 328 kB on cpu.*1 kB are free.*fisher_memory"):
        modifier.apply(net, grad_sampler=feeding(net.gradients(1)))
    assert torch.equal(net.layers[0].weight.data, before)


def test_memory_for_less_than_a_block(dots, feeding):
    net = dots((8, 8))
    modifier = CAPruningModifier(**EXACT, fisher_memory="600B")
    with pytest.raises(RuntimeError, match="fisher_memory must be 640 B at least"):
        modifier.initialize(net, grad_sampler=feeding(net.gradients(1)))


def test_more_dampening_is_reported(dots, feeding, caplog):
    net = dots((4, 8))
    gradients = [[1e4 * torch.ones(4, 8).double()]] * 3
    fields = {**EXACT, "damp": 1e-9, "fisher_dtype": "float32"}
    CAPruningModifier(**fields, num_grads=3).apply(net, grad_sampler=feeding(gradients))
    assert "4 of 4 Fisher blocks were not positive definite with damp 1e-09" in caplog.text
    assert zeros(net) == 16 and all(bool(p.isfinite().all()) for p in net.parameters())


def test_more_recomputations_reach_the_same_count(dots, feeding):
    for count in (1, 3):
        net = dots((8, 8), (5, 7))
        fields = {**EXACT, "num_recomputations": count, "recomputation_inter_func": "cubic"}
        sampler = feeding(net.gradients(10))
        CAPruningModifier(**fields, num_grads=10).apply(net, grad_sampler=sampler)
        assert zeros(net) == round(99 * 0.5)


def test_fields_of_old_recipes_and_their_twin(dots):
    text = """!CAPruningModifier
        params: ['re:.*weight']
        init_sparsity: 0.4
        final_sparsity: 0.6
        start_epoch: 0.0
        end_epoch: 40.0
        update_frequency: 20
        inter_func: linear
        mask_type: unstructured
        global_sparsity: True
        num_grads: 4096
        fisher_block_size: 256
        damp: 1.0e-8
        num_recomputations: 1
        fisher_inv_device: cpu
        blocks_in_parallel: -1
        update: simultaneous
    """
    modifier = Modifier.load_obj(text)
    assert isinstance(modifier, CAPruningModifier)
    assert (modifier.damp, modifier.fisher_block_size) == (1e-8, 256)
    assert (modifier.weight_update, modifier.num_recomputations) == ("simultaneous", 1)
    manager = ScheduledModifierManager.from_yaml(f"modifiers:\n  - {text}")
    assert ScheduledModifierManager.from_yaml(str(manager)) == manager
    assert CAPruningModifier(**FIELDS).weight_update == "joint"


@pytest.mark.parametrize("mask_type", ["4x1", "filter", "4:2", [2, 2], "nonsense"])
def test_patterns_that_it_does_not_know(mask_type):
    with pytest.raises(ValueError, match=r"mask_type of CAPruningModifier must be"):
        CAPruningModifier(**FIELDS, mask_type=mask_type)


@pytest.mark.parametrize("kind", [CAPruningModifier, OBSPruningModifier])
def test_what_inputs_tell_changes_masks_and_is_refused_without_inputs(kind):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Embedding(9, 8), torch.nn.Linear(8, 8))
    batches = [([torch.randint(9, (4, 3))], {}, torch.randn(4, 3, 8)) for _ in range(8)]
    loss = torch.nn.functional.mse_loss
    sampler = {"data_loader_builder": lambda: batches, "loss_fn": loss, "progress_bar": False}
    schedule = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 1.0}
    fields = {"init_sparsity": 0.5, "final_sparsity": 0.5, **schedule, "num_grads": 8}
    fields |= {"damp": 1e-6, "fisher_block_size": 8, "mask_type": "2:4"}
    masks = [
        kind(params=["1.weight"], **fields, input_prior=prior)
        .outcome(net, grad_sampler=sampler)["1.weight"]
        .mask
        for prior in (0.0, 3.0)
    ]
    assert not torch.equal(*masks) and all(int(mask.sum()) == 32 for mask in masks)
    with pytest.raises(RuntimeError, match=r"inputs of 0\.weight: .* Embedding .* input_prior: 0"):
        kind(params=["0.weight"], **fields, input_prior=1.0).outcome(net, grad_sampler=sampler)
    with pytest.raises(ValueError, match="input_prior must be at least 0"):
        kind(params=["1.weight"], **fields, input_prior=-1)
    assert "input_prior" not in str(kind(params=["1.weight"], **fields))
