"""What pruning by running saliency can do besides: parts, group lasso, gradients of masks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparseml.pytorch.functional.group_lasso import factors_by_gradient, factors_by_weight
from sparseml.pytorch.functional.patterns import Block, parse_pattern
from sparseml.pytorch.functional.selection import rearranged
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import SnipMomentumPruningModifier

STEPS = {"start_step": 2, "end_step": 18, "update_steps": 8}


def modifier(**changes):
    first = {"params": ["re:.*weight"], "init_sparsity": 0.0, "final_sparsity": 0.5, **STEPS}
    return SnipMomentumPruningModifier(**{**first, **changes})


class Training:
    """Optimizer steps on random data, or with given gradients at a learning rate of 0."""

    def __init__(self, net, pruner, lr=0.0, steps_per_epoch=5, optimizer=torch.optim.SGD):
        self.net, self.pruner = net, pruner
        self.optimizer = optimizer(net.parameters(), lr=lr)
        self.stepper = ScheduledModifierManager([pruner]).modify(
            net, self.optimizer, steps_per_epoch=steps_per_epoch
        )
        self.generator = torch.Generator().manual_seed(0)

    def step(self, gradients=None):
        weights = [layer.weight for layer in self.net]
        for place, weight in enumerate(weights):
            drawn = torch.randn(weight.shape, generator=self.generator, dtype=torch.float64)
            grad = drawn if gradients is None else gradients[place].clone()
            # as a backward pass would leave it
            weight.grad = grad * self.pruner.masks.masks[place] if self.pruner.started else grad
        self.stepper.step()

    def zeros(self):
        return sum(int((layer.weight == 0).sum()) for layer in self.net)

    def run(self, steps, gradients=None):
        found = []
        for _ in range(steps):
            self.step(gradients)
            found.append(self.zeros())
            masked = sum(int((~mask).sum()) for mask in self.pruner.masks.masks)
            assert masked == self.zeros()
        return found


def net_of(*shapes):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(i, o, bias=False) for o, i in shapes)).double()


class TestParts:
    def test_a_part_goes_at_each_sub_step(self):
        run = Training(net_of((4, 8), (8, 4)), modifier(inter_func="linear", progressive_steps=4))
        found = run.run(24)
        # updates at 2 (nothing yet), 10 (a quarter) and 18 (half, at the end as a whole)
        assert found[:10] == [0] * 10
        assert found[10:18] == [4, 4, 8, 8, 12, 12, 16, 16]
        assert found[18:] == [32] * 6

    def test_the_initial_sparsity_comes_in_parts_too(self):
        fields = {"init_sparsity": 0.25, "inter_func": "linear", "progressive_steps": 4}
        run = Training(net_of((4, 8), (8, 4)), modifier(**fields))
        assert run.run(10) == [0, 0, 4, 4, 8, 8, 12, 12, 16, 16]

    @pytest.mark.parametrize(
        ("every", "end", "parts", "expected"),
        [
            # as many parts as there are steps, and all of them done before the next update
            (3, 6, 4, [0, 0, 0, 2, 5, 8, 16, 16]),
            (1, 4, 4, [0, 4, 8, 12, 16, 16, 16, 16]),
            (2, 4, 2, [0, 0, 4, 8, 16, 16, 16, 16]),
            # after the last whole interval there is time for two parts; the end brings the rest
            (4, 6, 4, [0, 0, 0, 0, 4, 8, 16, 16]),
        ],
    )
    def test_few_steps_between_updates(self, every, end, parts, expected):
        when = {"start_step": 0, "end_step": end, "update_steps": every}
        fields = {"final_sparsity": 0.25, "inter_func": "linear", "progressive_steps": parts}
        run = Training(net_of((4, 8), (8, 4)), modifier(**fields, **when))
        assert run.run(8) == expected

    def test_frequencies_in_epochs(self):
        when = {"start_epoch": 0.0, "end_epoch": 2.0, "update_frequency": 1.0}
        fields = {"params": ["re:.*weight"], "init_sparsity": 0.0, "final_sparsity": 0.5}
        pruner = SnipMomentumPruningModifier(
            **fields, **when, inter_func="linear", progressive_steps=4
        )
        run = Training(net_of((4, 8), (8, 4)), pruner, steps_per_epoch=3)
        assert run.run(8) == [0, 0, 0, 5, 10, 16, 32, 32]

    def test_the_lowest_of_all_layers_go_first_within_blocks_too(self):
        net = net_of((4, 6), (8, 3))
        pruner = modifier(mask_type="4x1", inter_func="linear", progressive_steps=4)
        run, torch_rng = Training(net, pruner), torch.Generator().manual_seed(4)
        gradients = [torch.rand(x.weight.shape, generator=torch_rng).double() for x in net]
        torn = 0
        for step in range(20):
            before = [mask.clone() for mask in pruner.masks.masks]
            run.step(gradients)
            after = pruner.masks.masks
            if step in (10, 12, 14):
                goal = pruner.progress_state()["sub_steps"]["goal"]
                found = pruner.method.scores(pruner.problem(net))
                scores = torch.cat([score.flatten() for score in found])
                left = torch.cat([(m & ~goal[n]).flatten() for n, m in pruner.masks.items()])
                gone = torch.cat([(b & ~a).flatten() for b, a in zip(before, after, strict=True)])
                assert int(gone.sum()) == 3
                assert scores[gone].max() <= scores[left].min()
                heights = torch.cat([m.view(-1, 4, m.shape[1]).sum(1).flatten() for m in after])
                torn += int(((heights > 0) & (heights < 4)).sum())
        assert torn
        for mask in pruner.masks.masks:
            assert set(mask.view(-1, 4, mask.shape[1]).sum(1).unique().tolist()) <= {0, 4}

    def test_two_in_four_is_in_the_pattern_at_the_end(self):
        net = net_of((4, 8), (8, 8))
        pruner = modifier(mask_type="2:4", progressive_steps=4)
        run = Training(net, pruner, lr=0.01, optimizer=torch.optim.AdamW)
        run.run(24)
        assert all(((x.weight != 0).unflatten(1, (-1, 4)).sum(2) == 2).all() for x in net)

    def test_momentum_of_what_goes_is_cleared(self):
        net = net_of((4, 8))
        pruner = modifier(progressive_steps=4, inter_func="linear")
        run = Training(net, pruner, lr=0.01, optimizer=torch.optim.AdamW)
        for _ in range(18):
            run.step()
            gone = ~pruner.masks.masks[0]
            assert not run.optimizer.state[net[0].weight]["exp_avg"][gone].any()

    def test_in_one_shot_all_goes_at_once(self):
        net = net_of((4, 8))
        modifier(progressive_steps=4, score_type="magnitude").apply(net)
        assert int((net[0].weight == 0).sum()) == 16


class TestGroupLasso:
    @pytest.mark.parametrize("kind", ["group_lasso", "group_lasso_by_gradient"])
    @pytest.mark.parametrize("layer_type", [nn.Linear, Conv1D])
    def test_weights_shrink_between_start_and_end(self, kind, layer_type):
        torch.manual_seed(0)
        layer = layer_type(6, 8) if layer_type is nn.Linear else Conv1D(8, 6)
        net, units, strength = nn.Sequential(layer).double(), Block(4, 1), 0.05
        fields = {"mask_type": "4x1", "reg_type": kind, "reg_coeff": strength}
        when = {"start_step": 2, "end_step": 5, "update_steps": 1}
        # so little that nothing goes
        pruner = modifier(**fields, **when, final_sparsity=0.01)
        run = Training(net, pruner, lr=0.1)
        for step in range(8):
            weight = layer.weight.detach().clone()
            run.step()
            weight -= 0.1 * layer.weight.grad
            turn = (lambda x: x.T) if layer_type is Conv1D else (lambda x: x)
            if 2 <= step <= 5:
                of = weight if kind == "group_lasso" else layer.weight.grad
                find = factors_by_weight if kind == "group_lasso" else factors_by_gradient
                weight *= turn(find(turn(of), units, strength))
            torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-12, atol=1e-15)

    def test_more_units_get_close_to_zero(self):
        def norms(strength):
            torch.manual_seed(0)
            net, inputs = nn.Sequential(nn.Linear(8, 16)).double(), torch.randn(64, 8).double()
            lasso = {"reg_type": "group_lasso", "reg_coeff": strength} if strength else {}
            pruner = modifier(mask_type="1xchannel", final_sparsity=0.01, end_step=60, **lasso)
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            stepper = ScheduledModifierManager([pruner]).modify(net, optimizer, 100)
            target = inputs @ torch.randn(8, 16).double() * (torch.arange(16) < 8)
            for _ in range(60):
                stepper.zero_grad()
                (net(inputs) - target).square().mean().backward()
                stepper.step()
            return net[0].weight.detach().norm(dim=1)

        shrunk, free = norms(0.02), norms(0.0)
        assert int((shrunk[8:] == 0).sum()) > 4 and int((free == 0).sum()) == 0
        assert (shrunk[:8] > 0).all()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"reg_type": "group_lasso"}, "reg_type and reg_coeff of Snip.* need each other"),
            ({"reg_coeff": 0.1}, "need each other, found reg_type None and reg_coeff 0.1"),
            ({"reg_type": "lasso", "reg_coeff": 0.1}, "reg_type must be 'group_lasso'"),
            ({"reg_type": "group_lasso", "reg_coeff": -0.1}, "reg_coeff must be at least 0"),
        ],
    )
    def test_wrong_fields(self, changes, message):
        with pytest.raises(ValueError, match=message):
            modifier(mask_type="4x1", **changes)


class TestBlockMask:
    @pytest.mark.parametrize("mask_type", ["4x1", "2x3", "1xchannel", "channelx1"])
    def test_scores_are_those_of_a_forward_pass_with_masks(self, mask_type):
        net, inputs = net_of((8, 6)), torch.randn(4, 6).double()
        when = {"start_step": 1, "end_step": 9, "update_steps": 8}
        pruner = modifier(mask_type=mask_type, score_type="block_mask", **when)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        stepper = ScheduledModifierManager([pruner]).modify(net, optimizer, steps_per_epoch=5)
        expected, pattern = torch.zeros(()).double(), parse_pattern(mask_type)
        for step in range(5):
            blank = pattern.unit_scores(torch.ones(8, 6).double())
            factor = torch.ones_like(blank).requires_grad_()
            weight = net[0].weight.detach() * pattern.spread(factor, (8, 6))
            nn.functional.linear(inputs, weight).pow(2).mean().backward()
            if step >= 1:  # only while pruning goes on
                expected = 0.9 * expected + factor.grad.abs()
            stepper.zero_grad()
            net(inputs).pow(2).mean().backward()
            stepper.step()
        found = pruner.method.scores(pruner.problem(net))[0]
        torch.testing.assert_close(found, pattern.spread(expected, (8, 6)))

    def test_signs_count(self):
        # what the first block's weights do adds up, what the second's do cancels out
        net = net_of((4, 2))
        nn.init.ones_(net[0].weight)
        gradients = [torch.tensor([[1.0, 3.0], [1.0, -3.0], [1.0, 3.0], [1.0, -3.0]]).double()]
        for kind, gone in (("block_mask", 1), ("snip_momentum", 0)):
            run = Training(copy.deepcopy(net), modifier(mask_type="4x1", score_type=kind))
            run.run(20, gradients)
            assert (run.net[0].weight == 0).all(0).tolist() == [gone == 0, gone == 1]


def sampler(data):
    loss = nn.functional.mse_loss
    return {"data_loader_builder": lambda: data, "loss_fn": loss, "progress_bar": False}


class TestRetrainFree:
    @pytest.mark.parametrize("mask_type", ["channelx1", "1xchannel", "channel", "filter"])
    @pytest.mark.parametrize("together", [True, False])
    def test_masks_by_their_gradients(self, mask_type, together):
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 8)).double()
        data = [([torch.randn(5, 8).double()], {}, torch.randn(5, 8).double()) for _ in range(6)]
        fields = {"mask_type": mask_type, "score_type": "retrain_free", "num_grads": 6}
        pruner = modifier(**fields, global_sparsity=together, params=["0.weight", "2.weight"])
        outcome = pruner.outcome(net, grad_sampler=sampler(data))
        rows = []
        for inputs, _, labels in data:
            loss = nn.functional.mse_loss(net(*inputs), labels)
            weights = [net[0].weight, net[2].weight]
            axis = 0 if mask_type in ("channelx1", "channel") else 1
            grads = torch.autograd.grad(loss, weights)
            rows.append([(w * g).sum(axis).detach() for w, g in zip(weights, grads, strict=True)])
        gradients = [torch.stack(each) for each in zip(*rows, strict=True)]
        squares = [each.square().sum(0) for each in gradients]
        for place, name in enumerate(("0.weight", "2.weight")):
            mask = outcome[name].mask
            kept = mask.any(axis)
            assert torch.equal(mask, (kept[:, None] if axis else kept).expand_as(mask))
            if not together:
                assert int((~kept).sum()) == len(kept) // 2
            first = torch.ones_like(kept)
            first[squares[place].argsort()[: int((~kept).sum())]] = False
            assert torch.equal(kept, rearranged(first, gradients[place]))

    def test_the_loss_rises_less_than_by_choosing_at_random(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        inputs, labels = torch.randn(256, 16), torch.randn(256, 4)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(inputs), labels).backward()
            optimizer.step()
        data = [([inputs[i::16]], {}, labels[i::16]) for i in range(16)]
        fields = {"mask_type": "channelx1", "score_type": "retrain_free", "num_grads": 16}
        pruner = modifier(**fields, params=["2.weight"], final_sparsity=0.25)
        pruned = copy.deepcopy(net)
        pruner.apply(pruned, grad_sampler=sampler(data))
        assert int((pruned[2].weight == 0).all(0).sum()) == 16

        def loss(model):
            return nn.functional.mse_loss(model(inputs), labels).item()

        others = []
        for seed in range(5):
            other = copy.deepcopy(net)
            drawn = torch.randperm(64, generator=torch.Generator().manual_seed(seed))[:16]
            other[2].weight.data[:, drawn] = 0.0
            others.append(loss(other))
        assert loss(pruned) < min(others)

    def test_what_is_gone_stays_gone(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 8, bias=False))
        net[0].weight.data[:, :2] = 0.0
        net[0].weight.data[0, 2] = 0.0  # a zero in a column that may stay
        data = [([torch.randn(4, 8)], {}, torch.randn(4, 8)) for _ in range(4)]
        fields = {"mask_type": "channelx1", "score_type": "retrain_free", "num_grads": 4}
        modifier(**fields).apply(net, grad_sampler=sampler(data))
        gone = (net[0].weight == 0).all(0)
        assert gone[:2].all() and int(gone.sum()) == 4

    def test_without_a_sampler_it_refuses(self):
        pruner = modifier(mask_type="channelx1", score_type="retrain_free")
        assert pruner.needs() == {"grad_sampler": "it refuses to prune"}
        with pytest.raises(RuntimeError, match="grad_sampler"):
            pruner.apply(net_of((4, 4)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"score_type": "block_mask", "mask_type": "2:4"},
            r"score_type 'block_mask' of Snip.* needs blocks.*mask_type '2:4'",
        ),
        ({"score_type": "block_mask"}, "needs blocks that go as a whole.*'unstructured'"),
        (
            {"reg_type": "group_lasso", "reg_coeff": 0.1, "mask_type": "2:4"},
            "reg_type 'group_lasso' of Snip.* needs blocks",
        ),
        (
            {"score_type": "retrain_free", "mask_type": "4x1"},
            "score_type 'retrain_free' of Snip.* needs whole rows or columns.*mask_type '4x1'",
        ),
        (
            {"score_type": "retrain_free", "mask_type": "channelx1", "progressive_steps": 4},
            "progressive_steps of Snip.* must be 1 with score_type 'retrain_free'",
        ),
        ({"progressive_steps": 0}, "progressive_steps must be at least 1, found 0"),
    ],
)
def test_what_does_not_go_together(changes, message):
    with pytest.raises(ValueError, match=message):
        modifier(**changes).selects(net_of((8, 8)))


def test_the_head_may_be_spared():
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.Dropout())
    names = [one.name for one in modifier(spare_head=True).selects(net)]
    assert names == ["0.weight"]
    # what comes last is no head in every model
    other = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.LayerNorm(4))
    found = modifier(spare_head=True, params="__ALL_PRUNABLE__").selects(other)
    assert [one.name for one in found] == ["0.weight", "1.weight"]
    with pytest.raises(
        ValueError, match=r"spare_head and skip_indivisible of Snip.* leave nothing"
    ):
        modifier(spare_head=True, params=["1.weight"]).selects(net)
