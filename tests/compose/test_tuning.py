"""Pruning and tuning blocks: each once, each by itself, and what it learns."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sparseml.compose import sorting
from sparseml.compose.asking import Configuration
from sparseml.compose.origin import Lent
from sparseml.compose.planning import costs_of
from sparseml.compose.tuning import groups_of, learn, shared_out
from sparseml.pytorch.sparsification.composing.blocks import block_tensors
from sparseml.pytorch.sparsification.composing.student import Student, TuningSettings
from sparseml.pytorch.sparsification.composing.teaching import Teaching, find_layouts
from sparseml.pytorch.units import remove
from sparseml.pytorch.units.slim_attention import fused_heads, make_slim
from sparseml.run.errors import RunError

from .conftest import ATTENTION, LINEAR, Workshop, uniform


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_property_5_linear_layers_keep_the_largest_exactly(workshop):
    for density in (0.2, 0.3, 0.5, 0.77):
        made = workshop(uniform("a", density, LINEAR), name=f"store{density}")
        for pruned in made.pruned:
            (name,) = pruned.changes
            weight, mask = made.model.get_parameter(name), pruned.changes[name].mask
            assert int((~mask).sum()) == round((1 - density) * weight.numel())
            assert weight[mask].abs().min() >= weight[~mask].abs().max()


def test_property_5_pruned_heads_are_those_of_lowest_l1_and_may_be_removed(workshop):
    made = workshop(uniform("a", 0.5, ATTENTION[:1]))
    layer = copy.deepcopy(made.model.get_submodule(ATTENTION[0])).eval()
    own, heads, width = layer.in_proj_weight.detach(), layer.num_heads, layer.head_dim
    scores = own.reshape(3, heads, width, -1).abs().sum((0, 2, 3))
    keep = torch.zeros(heads, dtype=torch.bool)
    keep[scores.topk(2).indices] = True
    tensors = made.pruned[0].tensors(made.model)
    layer.load_state_dict({n.removeprefix(f"{ATTENTION[0]}."): v for n, v in tensors.items()})
    gone = (~keep).repeat_interleave(width)
    assert not layer.in_proj_weight[gone.repeat(3)].any()
    assert not layer.in_proj_bias[gone.repeat(3)].any()
    assert not layer.out_proj.weight[:, gone].any()
    assert layer.in_proj_weight[~gone.repeat(3)].all()
    inputs = torch.randn(2, 5, layer.embed_dim)
    before = layer(inputs, inputs, inputs)[0]
    holder = nn.ModuleDict({"attention": layer})
    make_slim(holder, layer)
    remove(holder, {fused_heads("attention", layer): keep})
    layer.num_heads = 2
    assert torch.allclose(layer(inputs, inputs, inputs)[0], before, atol=1e-5)


def test_property_7_blocks_do_not_know_of_each_other(workshop):
    wanted = [uniform("a", 0.5), uniform("b", 0.25)]
    together = workshop(*wanted, name="one", dropout=True)
    alone = workshop(*wanted, name="two", dropout=True)
    whole = together.tune()
    single = alone.tune([[block] for block in alone.plan.blocks])
    assert all(equal(whole[key], single[key]) for key in whole)


def test_property_8_the_origin_is_left_alone_and_masks_hold(workshop, trained):
    made = workshop(uniform("a", 0.25), weight_decay=0.1)
    made.model.train()
    tuned = made.tune()
    assert equal(dict(made.model.state_dict()), dict(trained.state_dict()))
    assert all(param.requires_grad for param in made.model.parameters())
    assert all(module.training for module in made.model.modules())
    for module in made.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    for pruned in made.pruned:
        values = tuned[pruned.block.block_id]
        for name, (mask, _) in pruned.changes.items():
            assert not values[name][~mask].any() and values[name][mask].any()


def test_property_9_the_loss_falls_on_data_that_nobody_has_seen(workshop):
    made = workshop(uniform("a", 0.5), uniform("b", 0.25), epochs=3)
    bench = made.bench()
    bench.tune(made.plan.blocks)
    others = Lent(sorting.SortingData(batches=4, batch_size=16, seed=5))
    for block in made.plan.blocks:
        done = bench.store.finished(bench.key(block))
        assert done["after"] <= done["before"]
        losses = []
        for kind, key in (("pruned", block.block_id), ("tuned", bench.key(block))):
            read = bench.store.read(kind, key, block)
            student = Student(block, made.model, *read, TuningSettings(epochs=1))
            with Teaching(made.model, [student], bench.layouts) as teaching:
                teaching.teach([student], learning=False)
                for batch in others.held_out():
                    teaching.run(lambda b=batch: others.call(made.model, b), others.masks(batch))
                losses.append(teaching.held_out()[block.block_id])
        assert losses[1] < losses[0], block.label


class Padded(sorting.SortingData):
    """The same digits, with more padding."""

    def held_out(self):
        pad = torch.zeros(self.batch_size, 4, dtype=torch.long)
        return [(torch.cat([digits, pad], 1),) for (digits,) in super().held_out()]


def test_property_10_padding_does_not_change_the_losses(workshop):
    made = workshop(uniform("a", 0.5))
    bench = made.bench()
    students = [
        Student(one.block, made.model, one.tensors(made.model), one.masks(), made.settings)
        for one in made.pruned
    ]
    found = []
    for data in (sorting.SortingData(batch_size=16), Padded(batch_size=16)):
        lent = Lent(data)
        with Teaching(made.model, students, bench.layouts) as teaching:
            teaching.teach(students, learning=False)
            for batch in lent.held_out():
                teaching.run(lambda b=batch, d=lent: d.call(made.model, b), lent.masks(batch))
            found.append(teaching.held_out())
    for key, loss in found[0].items():
        assert loss == pytest.approx(found[1][key], rel=1e-5, abs=1e-6)


def test_property_10_what_is_compared_has_the_shape_of_the_whole_output(workshop, monkeypatch):
    from sparseml.pytorch.sparsification.composing import teaching

    made, shapes = workshop(uniform("a", 0.5)), []
    original = teaching.block_error

    def noting(output, target, *rest):
        shapes.append((tuple(output.shape[:2]), tuple(target.shape[:2])))
        return original(output, target, *rest)

    monkeypatch.setattr(teaching, "block_error", noting)
    made.tune()
    assert set(shapes) == {((16, 10), (16, 10))}


class TwoStreams(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder, self.key = (nn.Linear(4, 4) for _ in range(3))
        self.never = nn.Linear(4, 4)

    def forward(self, source, target):
        return self.decoder(target) + self.key(self.encoder(source)).mean(1, keepdim=True)


def test_padding_is_told_by_shape_not_by_name():
    def batch(source, target):
        shapes = {"encoder": (2, source), "decoder": (2, target)}
        masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
        return (lambda: model(torch.ones(2, source, 4), torch.ones(2, target, 4))), masks

    model = TwoStreams()
    found = find_layouts(model, ["encoder", "decoder", "key"], [batch(5, 5), batch(5, 3)])
    assert found == {"encoder": "encoder", "decoder": "decoder", "key": "encoder"}
    with pytest.raises(ValueError, match="whose padding the output of key has cannot be told"):
        find_layouts(model, ["encoder", "key"], [batch(5, 5)])
    with pytest.raises(ValueError, match="no call of never"):
        find_layouts(model, ["never"], [batch(5, 3)])


def test_the_forward_pass_ends_after_the_last_module_that_is_needed(workshop):
    made = workshop(uniform("a", 0.5, LINEAR[:1]))
    calls = []
    made.model.head.register_forward_hook(lambda *_: calls.append("head"))
    bench = made.bench()
    calls.clear()
    bench.tune(made.plan.blocks)
    # one whole pass to find out, each time that it is another set of students
    assert 1 <= len(calls) <= 2 * made.settings.epochs + 1


def test_early_stop_is_each_block_s_own(workshop):
    made = workshop(uniform("a", 0.5, LINEAR[:2]), epochs=6, patience=1, lr=3.0, decay="constant")
    made.tune()
    for done in made.store.ledger.events("finished"):
        waited = done["epochs"] - done["best_epoch"]
        assert waited == 1 or done["epochs"] == 6
        assert done["after"] == min(done["losses"])


@pytest.mark.parametrize("kind", ["layer", "hierarchical"])
def test_layers_and_runs_learn_as_wholes(workshop, kind):
    made = workshop(uniform("a", 0.5), uniform("b", 0.5), kind=kind, epochs=3)
    made.tune()
    done = made.store.ledger.events("finished")
    assert len(done) == (1 if kind == "hierarchical" else 2)
    assert all(one["after"] < 0.8 * one["before"] for one in done)


def test_groups_fit_the_memory_and_are_shared_out_by_cost(workshop):
    made = workshop(uniform("a", 0.5), uniform("b", 0.25))
    blocks = made.plan.blocks
    everything = groups_of(blocks, made.model, None)
    assert everything == [list(blocks)]
    groups = groups_of(blocks, made.model, 400_000)
    assert [b for g in groups for b in g] == list(blocks) and len(groups) > 2
    for group in groups:
        size = sum(v.numel() for b in group for v in block_tensors(made.model, b.modules).values())
        assert 21 * size <= 400_000
    with pytest.raises(RunError, match=r"--max-memory: tuning encoder\.layers\.0\.self_attn takes"):
        groups_of(blocks, made.model, 1000)
    order = shared_out(groups, 2)
    assert sorted(order[0] + order[1]) == list(range(len(groups)))
    loads = [sum(b.cost_estimate for g in mine for b in groups[g]) for mine in order]
    assert max(loads) < 0.7 * sum(loads)


def test_property_19_estimated_and_counted_costs_agree(workshop):
    data = sorting.SortingData(batches=3, batch_size=16)
    data.held_out = list
    made = workshop(uniform("a", 0.5), uniform("b", 0.25), epochs=1, data=None)
    students = [
        Student(one.block, made.model, one.tensors(made.model), one.masks(), made.settings)
        for one in made.pruned
    ]
    for student in students:
        student.measured(1.0)
    layouts = dict.fromkeys([*ATTENTION, *LINEAR], "")
    counted = FlopCounterMode(display=False)
    batches = data.training(0)
    with Teaching(made.model, students, layouts) as teaching:
        teaching.teach(students)
        teaching.run(lambda: made.model(*batches[0]), {"": batches[0][0] != 0})
        with counted:
            for batch in batches:
                teaching.run(lambda b=batch: made.model(*b), {"": batch[0] != 0})
    tokens = sum(batch[0].numel() for batch in batches)
    costs = costs_of(made.plan, made.model, 1.0)
    assert counted.get_total_flops() == pytest.approx(2 * tokens * costs.block_stage, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_properties_13_and_14_composed_models_begin_better_and_learn_faster(tmp_path, seed):
    origin = sorting.train(400, seed)
    data = sorting.SortingData(batches=20, batch_size=32, seed=seed)
    wanted = [uniform(str(d), d) for d in (0.8, 0.5, 0.2)]
    made = Workshop(tmp_path / "store", origin, wanted, data=data, epochs=10, seed=seed)
    made.tune()
    curves = {}
    for name in made.plan.names:
        for source in ("pruned", "tuned"):
            curves[name, source] = trained_on(made, name, source, (0, 30, 100))
    assert curves["0.5", "tuned"][0] < 0.5 * curves["0.5", "pruned"][0]
    for name, steps in (("0.5", (1, 2)), ("0.2", (1, 2))):
        for step in steps:
            assert curves[name, "tuned"][step] < curves[name, "pruned"][step], (name, step)
    assert curves["0.8", "tuned"][2] < 2 * curves["0.8", "pruned"][2]


def trained_on(made, name, source, steps):
    """The held-out loss of a model after each of some numbers of steps."""
    from sparseml.compose.finishing import compose_model
    from sparseml.pytorch.sparsification.composing.modifier_assemble import masks_of

    model = compose_model(made.store, made.plan, name, made.model, source)
    masks = masks_of(made.store, made.plan, name)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    batches = [b for epoch in range(50, 56) for b in made.data.training(epoch)]
    losses = []
    for step in range(max(steps) + 1):
        if step in steps:
            losses.append(made.data.evaluate(model)["loss"])
        optimizer.zero_grad()
        made.data.loss(model, batches[step]).backward()
        optimizer.step()
        with torch.no_grad():
            for param, mask in masks.items():
                model.get_parameter(param).mul_(mask)
    return losses


def test_a_module_that_runs_twice_learns_from_both(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 4)

        def forward(self, given):
            return self.layer(self.layer(given).tanh())

    class Data:
        fingerprint = "twice"

        def training(self, epoch):
            lot = torch.Generator().manual_seed(epoch)
            return [(torch.randn(8, 4, generator=lot).cumsum(1),) for _ in range(5)]

        def held_out(self):
            return self.training(99)

        def evaluate(self, model):
            return {"loss": 0.0}

    wanted = [Configuration("a", rates={"layer": 0.5})]
    made = Workshop(tmp_path / "s", Twice(), wanted, data=Data(), epochs=20, lr=1e-3)
    made.tune()
    (done,) = made.store.ledger.events("finished")
    assert done["steps"] == 100 and done["after"] < done["before"]


def test_learning_goes_on_where_each_student_is(workshop):
    made = workshop(uniform("a", 0.5, LINEAR[:2]), epochs=3)
    bench, ends = made.bench(), []

    def students():
        return [
            Student(one.block, made.model, one.tensors(made.model), one.masks(), made.settings)
            for one in made.pruned
        ]

    whole = students()
    learn(made.model, made.data, whole, bench.layouts, lambda s: None)
    first, second = students()
    learn(made.model, made.data, [first], bench.layouts, lambda s: None)
    state = second.state()
    second.load_state(*state)
    learn(made.model, made.data, [first, second], bench.layouts, lambda s: ends.append(s.epoch))
    assert ends == [3, 1, 2, 3]
    assert equal(whole[0].tensors(), first.tensors()) and equal(
        whole[1].tensors(), second.tensors()
    )
