"""What scheduled grow-and-prune promises, checked after every optimizer step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import GaPPruningModifier

PER_EPOCH = 4
OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.05, initial_accumulator_value=0.1),
}


def make(**fields):
    given = {"params": ["re:.*weight"], "final_sparsity": 0.75, "num_steps": 4} | fields
    return GaPPruningModifier(**{"update_frequency": 1.0, **given})


class Net(nn.Module):
    """Four matrices of 60, 120, 100 and 30 weights, and a norm and biases that are all zero."""

    def __init__(self):
        super().__init__()
        widths = [(6, 10), (10, 12), (12, 10), (10, 3)]
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in widths[:-1])
        self.layers[2] = nn.Linear(12, 10)
        self.norm = nn.LayerNorm(10)
        self.head = nn.Linear(10, 3)
        for layer in [*self.layers, self.norm, self.head]:
            nn.init.zeros_(layer.bias)

    def forward(self, inputs):
        for layer in self.layers:
            inputs = torch.tanh(layer(inputs))
        return self.head(self.norm(inputs))


WEIGHTS = ["re:layers.*weight", "head.weight"]


class Run:
    """A training of a small net with a modifier, on data that only the step decides."""

    def __init__(self, modifier, optimizer="sgd", net=None, first=0):
        torch.manual_seed(0)
        self.net = net or Net()
        self.optimizer = OPTIMIZERS[optimizer](self.net.parameters())
        self.modifier, self.done = modifier, first
        self.manager = ScheduledModifierManager([modifier])
        self.stepper = self.manager.modify(self.net, self.optimizer, steps_per_epoch=PER_EPOCH)

    def step(self):
        generator = torch.Generator().manual_seed(self.done)
        self.optimizer.zero_grad()
        (self.net(torch.randn(5, 6, generator=generator)) - 1.0).pow(2).mean().backward()
        self.stepper.step()
        self.done += 1

    def steps(self, count):
        for _ in range(count):
            self.step()
        return self

    @property
    def weights(self):
        return {name: param.detach().clone() for name, param in self.net.named_parameters()}

    @property
    def masks(self):
        return {name: mask.clone() for name, mask in self.modifier.masks.items()}


def grown(modifier, step):
    names = modifier.masks.full_names
    return {names[place] for place in modifier._groups[step]}


def target(sparsity, mask):
    return round(sparsity * mask.numel())


KINDS = {
    "cyclic": {"num_partitions": 3},
    "explicit": {"partitions": [["re:layers.[01]"], ["head.weight", "layers.2.weight"]]},
    "random": {"partition_type": "random", "num_partitions": 2, "seed": 4},
    "tensors": {"num_partitions": 2, "partition_by": "tensors", "initial_mask": "random"},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_partition_is_dense_and_all_others_hold_their_masks(kind, optimizer):
    modifier = make(params=WEIGHTS, **KINDS[kind])
    run = Run(modifier, optimizer)
    before = run.weights
    old, values = None, before
    for step in range(6 * PER_EPOCH):  # of which two epochs fine-tune
        run.step()
        phase, masks, weights = step // PER_EPOCH, run.masks, run.weights
        dense = grown(modifier, phase) if phase < 4 else set()
        for name, mask in masks.items():
            gone = int((~mask).sum())
            assert gone == (0 if name in dense else target(0.75, mask)), (step, name)
            assert not weights[name][~mask].any()
            if old is not None and torch.equal(mask, old[name]):
                kept = mask & (values[name] != 0)
                assert not torch.equal(weights[name][kept], values[name][kept])  # it trains
            elif old is not None:  # only what grows, or has grown, may change
                assert step % PER_EPOCH == 0
                assert name in grown(modifier, phase - 1) | dense
        assert set(masks) == {f"layers.{n}.weight" for n in range(3)} | {"head.weight"}
        old, values = masks, weights
    assert modifier.ended and modifier.masks.enabled
    total = sum(target(0.75, mask) for mask in old.values())
    run.manager.finalize(run.net)
    zeros = sum(int((run.net.state_dict()[name] == 0).sum()) for name in old)
    assert zeros == total


def test_the_first_step_leaves_its_partition_as_it_was():
    modifier = make(params=WEIGHTS, num_partitions=3)
    run = Run(modifier)
    before = run.weights
    modifier.scheduled_update(run.net, run.optimizer, 0.0, PER_EPOCH)
    for name, mask in modifier.masks.items():
        assert torch.equal(run.weights[name], before[name] * mask)
        assert mask.all() == (name in grown(modifier, 0))


def test_pruning_goes_by_magnitude_and_growing_changes_no_value():
    modifier = make(params=WEIGHTS, num_partitions=3)
    run = Run(modifier).steps(PER_EPOCH)
    before, old = run.weights, run.masks
    modifier.scheduled_update(run.net, run.optimizer, 1.0, PER_EPOCH)
    after, masks = run.weights, run.masks
    pruned, grows = grown(modifier, 0), grown(modifier, 1)
    for name, mask in masks.items():
        kept, gone = before[name][mask].abs(), before[name][~mask].abs()
        if name in pruned:
            assert kept.min() >= gone.max() > 0
            assert torch.equal(after[name], before[name] * mask)
        else:
            assert torch.equal(after[name], before[name])
            assert mask.all() if name in grows else torch.equal(mask, old[name])


def test_what_grows_moves_at_once():
    modifier = make(params=WEIGHTS, num_partitions=3)
    run = Run(modifier).steps(PER_EPOCH)
    old = run.masks
    run.step()
    for name in grown(modifier, 1):
        came_back = ~old[name]
        assert run.weights[name][came_back].abs().min() > 0


def test_equal_weights_go_from_the_end():
    net = nn.Linear(8, 1, bias=False)
    nn.init.ones_(net.weight)
    modifier = make(num_steps=0, num_partitions=1)
    modifier.apply(net, finalize=False)
    assert modifier.masks["weight"].flatten().tolist() == [True] * 2 + [False] * 6


def test_pruning_again_changes_nothing():
    first = make(num_steps=0, params=WEIGHTS)
    net = Net()
    first.apply(net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    again = make(num_steps=0, params=WEIGHTS)
    again.apply(net, finalize=False)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(mask, before[name] != 0) for name, mask in again.masks.items())


def test_carried_masks_stay_though_kept_weights_are_zero():
    net, modifier = Net(), make(num_steps=1, num_partitions=4, params=WEIGHTS)
    modifier.initialize(net)
    masks = [
        (torch.arange(mask.numel()) >= target(0.75, mask)).reshape(mask.shape)
        for mask in modifier.masks.masks
    ]
    modifier.masks.restore(masks)
    with torch.no_grad():  # a weight that is kept, and zero by chance
        net.layers[1].weight[masks[1]] = torch.tensor([0.0, *[1.0] * (int(masks[1].sum()) - 1)])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    modifier.scheduled_update(net, optimizer, 0.0, PER_EPOCH)
    for place, (mask, carried) in enumerate(zip(modifier.masks.masks, masks, strict=True)):
        assert torch.equal(mask, torch.ones_like(mask) if place == 0 else carried)


def test_exact_counts_of_the_published_shapes():
    for side, zeros in ((1024, 838_861), (2048, 3_355_443)):
        net = nn.Linear(side, side, bias=False)
        modifier = make(final_sparsity=0.8, num_steps=0, num_partitions=1)
        modifier.apply(net, finalize=False)
        assert int((~modifier.masks["weight"]).sum()) == zeros


@pytest.mark.parametrize("how", ["all", "grown", "none"])
def test_what_the_optimizer_forgets(how):
    modifier = make(params=WEIGHTS, num_partitions=3, reset_optimizer_state=how)
    run = Run(modifier, "adam").steps(PER_EPOCH)
    moments = {n: run.optimizer.state[p]["exp_avg"].clone() for n, p in run.net.named_parameters()}
    modifier.scheduled_update(run.net, run.optimizer, 1.0, PER_EPOCH)
    for name, param in run.net.named_parameters():
        if how == "all" or (how == "grown" and name in grown(modifier, 1)):
            assert param not in run.optimizer.state  # as in an optimizer that is new
        else:
            assert torch.equal(run.optimizer.state[param]["exp_avg"], moments[name])
    run.step()
    steps = {int(state["step"]) for state in run.optimizer.state.values()}
    assert steps == {"all": {1}, "grown": {1, 5}, "none": {5}}[how]


def test_masked_gradients_let_momentum_fade():
    seen = {}
    for masked in (True, False):
        modifier = make(
            params=WEIGHTS, num_steps=1, reset_optimizer_state="none", mask_gradients=masked
        )
        net = Net()
        run = Run(modifier, "adam", net)
        run.steps(1)
        name = next(n for n in run.masks if n not in grown(modifier, 0))
        param, mask = dict(net.named_parameters())[name], run.masks[name]
        rising = False
        last = run.optimizer.state[param]["exp_avg"][~mask].abs()
        for _ in range(3):
            run.step()
            moment = run.optimizer.state[param]["exp_avg"][~mask].abs()
            rising |= bool((moment > last).any())
            last = moment
            assert not param[~mask].any()
        seen[masked] = rising
    assert seen == {True: False, False: True}


def test_one_run_equals_a_chain_of_runs():
    whole = Run(make(params=WEIGHTS, num_steps=5, num_partitions=3), "adam").steps(5 * PER_EPOCH)
    torch.manual_seed(0)
    chained = Net()
    for step in range(5):
        link = make(
            params=WEIGHTS, num_steps=1, num_partitions=3, first_step=step, final_prune=False
        )
        run = Run(link, "adam", chained, first=step * PER_EPOCH).steps(PER_EPOCH)
        run.manager.finalize(chained)
    for name, value in whole.weights.items():
        assert torch.equal(value, dict(chained.named_parameters())[name]), name


def test_a_chain_of_random_groups_is_the_plan_of_one_run():
    fields = {"params": WEIGHTS, "num_partitions": 3, "partition_type": "random", "seed": 9}
    plan = make(num_steps=6, **fields).layout(Net()).groups
    links = [make(num_steps=1, first_step=q, **fields).layout(Net()).groups[0] for q in range(6)]
    assert links == plan and len(set(plan)) > 2
    assert make(num_steps=6, **{**fields, "seed": 10}).layout(Net()).groups != plan


def test_a_worker_grows_one_partition_and_leaves_it_dense():
    modifier = make(
        params=WEIGHTS, num_partitions=4, num_steps=1, partition_type="fixed", grown_partition=2,
        initial_mask="random",
    )  # fmt: skip
    run = Run(modifier).steps(3 * PER_EPOCH)
    assert modifier.ended
    dense = {name for name, mask in run.masks.items() if mask.all()}
    assert dense == {"layers.2.weight"}
    run.manager.finalize(run.net)
    zeros = {name: int((weight == 0).sum()) for name, weight in run.weights.items()}
    assert zeros["layers.2.weight"] == 0 and zeros["layers.1.weight"] == 90


@pytest.mark.parametrize("kind", ["fixed", "cyclic"])
def test_the_end_leaves_every_weight_of_what_stays_dense(kind):
    fields = {"grown_partition": 2} if kind == "fixed" else {"final_prune": False}
    modifier = make(
        params=WEIGHTS, num_partitions=4, num_steps=1, partition_type=kind, **fields
    )  # fmt: skip
    run = Run(modifier).steps(PER_EPOCH)
    before, masks = run.weights, run.masks
    modifier.scheduled_update(run.net, run.optimizer, 1.0, PER_EPOCH)
    assert modifier.ended
    assert all(torch.equal(value, before[name]) for name, value in run.weights.items())
    assert all(torch.equal(mask, masks[name]) for name, mask in run.masks.items())


def test_random_first_masks_are_drawn_by_the_seed_alone():
    def drawn(seed):
        net, modifier = Net(), make(num_steps=0, initial_mask="random", params=WEIGHTS, seed=seed)
        state = torch.get_rng_state()
        modifier.apply(net, finalize=False)
        assert torch.equal(state, torch.get_rng_state())
        return modifier.masks.masks

    assert all(map(torch.equal, drawn(1), drawn(1)))
    assert not any(map(torch.equal, drawn(1), drawn(2)))
    assert [int((~mask).sum()) for mask in drawn(1)] == [45, 90, 90, 22]


def test_sparsities_per_parameter_and_none():
    modifier = make(
        params=WEIGHTS,
        final_sparsity={0.0: ["layers.0.weight"], 0.05: ["head.weight"], 0.5: ["re:layers"]},
        num_partitions=2, num_steps=2,
    )  # fmt: skip
    run = Run(modifier).steps(3 * PER_EPOCH)
    gone = {name: int((~mask).sum()) for name, mask in run.masks.items()}
    assert gone == {
        "layers.0.weight": 0, "layers.1.weight": 60, "layers.2.weight": 60, "head.weight": 2,
    }  # fmt: skip


def test_ranking_what_is_pruned_together():
    modifier = make(params=WEIGHTS, num_partitions=2, num_steps=2, global_sparsity=True)
    run = Run(modifier)
    run.net.layers[0].weight.data.mul_(0.01)
    run.steps(3 * PER_EPOCH)
    gone = [int((~mask).sum()) for mask in run.masks.values()]
    groups = modifier._groups
    for group in groups:
        size = sum(modifier.masks.masks[place].numel() for place in group)
        assert sum(gone[place] for place in group) == round(0.75 * size)
    assert gone[0] != 45


@pytest.mark.parametrize("mask_type", ["2:4", "2x2", "filter"])
def test_any_pattern(mask_type):
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4))
    modifier = make(
        params=["2.weight", "4.weight"], final_sparsity=0.5, num_partitions=2, num_steps=2,
        mask_type=mask_type,
    )  # fmt: skip
    run = Run(modifier, net=net).steps(3 * PER_EPOCH)
    assert {n: int((~m).sum()) for n, m in run.masks.items()} == {"2.weight": 48, "4.weight": 24}
    if mask_type == "2:4":
        assert (run.masks["2.weight"].reshape(-1, 4).sum(1) == 2).all()


def test_boundaries_do_not_drift():
    modifier = make(num_steps=5, update_frequency=0.7, num_partitions=2, params=WEIGHTS)
    found = [
        (update.step, update.starts, update.ends) for update in modifier.schedule.updates(10, 50)
    ]
    assert found == [
        (0, True, False), (7, False, False), (14, False, False), (21, False, False),
        (28, False, False), (35, False, True),
    ]  # fmt: skip
    third = GaPPruningModifier(
        params=WEIGHTS, final_sparsity=0.5, num_steps=3, start_step=4, update_steps=5
    )
    third.resolve_steps(3)
    assert [update.step for update in third.schedule.updates(3, 50)] == [4, 9, 14, 19]
    assert "end" not in str(third) and third.end_epoch == pytest.approx(19 / 3)


def test_ties_to_an_embedding_are_left_out_unless_named():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, 4)
            self.mid = nn.Linear(4, 4)
            self.out = nn.Linear(4, 7, bias=False)
            self.out.weight = self.table.weight

    def selected(*params):
        modifier = make(params=list(params), num_partitions=1)
        return [one.name for one in modifier.selects(Tied())]

    assert selected("__ALL_PRUNABLE__") == ["mid.weight"]
    assert len(selected("__ALL_PRUNABLE__", "out.weight")) == 2
    assert len(selected("re:.*weight")) == 2


def test_what_is_asked_for_when():
    modifier = make(params=WEIGHTS, num_partitions=4, num_steps=5)
    net = Net()
    assert modifier.get_applied_sparsity_for_epoch(1.0, 4) == [0.0, 0.75]
    assert modifier.get_applied_sparsity_for_epoch(5.0, 4) == [0.75]
    assert modifier.sparsities_at(net, 2.5) == [0.75, 0.75, 0.0, 0.75]
    assert modifier.sparsities_at(net, 4.0) == [0.0, 0.75, 0.75, 0.75]
    assert modifier.sparsities_at(net, math.inf) == [0.75] * 4
    phases = [modifier.phase_at(epoch) for epoch in (0.0, 1.0, 4.9, 5.0)]
    assert phases == [f"partition {n} dense" for n in (0, 1, 0)] + ["all sparse"]


def test_a_single_partition_is_a_control(caplog):
    modifier = make(params=WEIGHTS, num_partitions=1, num_steps=2)
    run = Run(modifier).steps(PER_EPOCH + 1)
    assert "one partition" in caplog.text
    assert all(mask.all() for mask in run.masks.values())
    zeros = sum(int((weight == 0).sum()) for weight in run.weights.values())
    assert zeros == 0 and run.steps(PER_EPOCH).modifier.ended
    assert {int((~m).sum()) for m in run.masks.values()} == {45, 90, 22}


BAD = [
    ({"end_epoch": 5.0}, r"end_epoch .*is start_epoch \+ num_steps \* update_frequency, 4; .*5"),
    ({"update_frequency": -1.0}, "update_frequency .*length of a step.* greater than 0, found -1"),
    ({"start_epoch": -1.0}, "start_epoch .*at least 0"),
    ({"num_steps": -1}, "num_steps must be a whole number, at least 0, found -1"),
    ({"num_steps": 1.5}, "num_steps must be a whole number"),
    ({"num_partitions": 0}, "num_partitions must be at least 1"),
    ({"partition_type": "cycle"}, "partition_type must be .*did you mean 'cyclic'"),
    (
        {"partition_type": "random", "num_partitions": 1},
        "random needs num_partitions of at",
    ),
    ({"partition_type": "random", "partitions": [["a"]]}, "partitions cannot be given with"),
    ({"partitions": [["a"], []]}, "partitions must be a list that has for each partition a list"),
    ({"partitions": ["a"]}, "partitions must be a list that has for each partition a list"),
    ({"partitions": [["a"], ["b"]], "num_partitions": 4}, "num_partitions must be that of .* 2"),
    ({"partition_type": "fixed", "num_steps": 1}, "grown_partition must be 0 to 2 .* found None"),
    ({"partition_type": "fixed", "num_steps": 1, "grown_partition": 3}, "must be 0 to 2 .*found 3"),
    ({"partition_type": "fixed", "grown_partition": 1}, "single step: num_steps 1 .*found 4 and 0"),
    ({"grown_partition": 1}, "grown_partition needs partition_type fixed, found cyclic"),
    ({"final_sparsity": {0.5: ["a"], 0.6: ["b"]}, "global_sparsity": True}, "must be one number"),
    ({"final_sparsity": {1.0: ["a"]}}, "final_sparsity must be below 1, found 1.0"),
    ({"final_sparsity": {}}, "final_sparsity must name at least one sparsity"),
    ({"final_sparsity": 1.0}, "final_sparsity must lie strictly between 0 and 1"),
    ({"reset_optimizer_state": "some"}, "reset_optimizer_state must be"),
    ({"seed": "x"}, "seed must be a whole number"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_fields_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


MISFITS = [
    ({"partitions": [["re:layers"], ["layers.2.weight", "head.weight"]]}, "in partitions 0 and 1"),
    ({"partitions": [["re:layers"]]}, "1 of 4 tensors are in no partition: head.weight"),
    (
        {"partitions": [["re:layers"], ["head.weight", "norm.weight"]]},
        "'norm.weight' in partition",
    ),
    ({"num_partitions": 5}, "4 tensors make 1 to 4 partitions, found 5"),
    ({"num_partitions": 5, "partition_type": "random"}, "num_partitions .*found 5"),
    ({"final_sparsity": {0.5: ["re:layers"]}}, "no sparsity for 1 of the 4 .*: head.weight"),
    ({"params": ["layers.2.weight"], "num_partitions": 1, "mask_type": "2:4"}, "must be 0.5 with"),
]


@pytest.mark.parametrize(("fields", "message"), MISFITS)
def test_what_does_not_fit_the_model(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**{"params": WEIGHTS, **fields}).initialize(Net())
    with pytest.raises(ValueError, match=message):
        make(**{"params": WEIGHTS, **fields}).selects(Net())


def test_an_entry_of_a_partition_that_matches_nothing():
    with pytest.raises(RuntimeError, match="layrs"):
        make(params=WEIGHTS, partitions=[["re:layrs"]]).initialize(Net())
