"""The modifiers: blocks that learn in anyone's loop, models put together as recipes start."""

from __future__ import annotations

import copy

import pytest
import torch

from sparseml.compose import sorting
from sparseml.compose.asking import Asking, Configuration
from sparseml.compose.planning import make_plan
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import AssembleModifier, BlockTuningModifier
from sparseml.pytorch.sparsification.composing.blocks import DigestError
from sparseml.pytorch.sparsification.composing.store import BlockStore

LINEAR = ["encoder.layers.0.linear1", "encoder.layers.1.linear2"]
STEPS = 5


@pytest.fixture
def origin():
    return sorting.model().eval()


@pytest.fixture
def store(origin, tmp_path):
    wanted = [Configuration(n, rates=dict.fromkeys(LINEAR, d)) for n, d in (("a", 0.5), ("b", 0.2))]
    plan, pruned = make_plan(origin, wanted, Asking(origin), base={"model": "sorter"})
    opened = BlockStore(tmp_path)
    opened.adopt(plan)
    for one in pruned:
        opened.prune(one.block, one.tensors(origin), one.masks())
    return opened


def recipe(store, epochs=2.0, **more):
    fields = {"store": str(store.folder), "start_epoch": 0.0, "end_epoch": epochs, "lr": 0.001}
    return ScheduledModifierManager([BlockTuningModifier(**fields, **more)])


def loop(model, manager, steps, batches):
    """A training loop that knows nothing of blocks."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    stepper = manager.modify(model, optimizer, steps_per_epoch=STEPS)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = batches.loss(model, batches.training(0)[step % STEPS])
        loss = stepper.loss_update(loss)
        loss.backward()
        stepper.step()
        losses.append(float(loss.detach()))
    return losses


def test_blocks_learn_in_anyones_loop_and_the_model_stays(store, origin):
    before = copy.deepcopy(origin.state_dict())
    manager = recipe(store, epochs=4.0)
    losses = loop(origin, manager, 4 * STEPS + 1, sorting.SortingData(STEPS, 8))
    manager.finalize(origin)
    assert losses[3 * STEPS + 1] < 0.9 * losses[1]
    assert all(torch.equal(v, before[n]) for n, v in origin.state_dict().items())
    assert all(param.requires_grad for param in origin.parameters())
    done = store.ledger.events("finished")
    assert len(done) == 4 and all(one["after"] < one["before"] for one in done)
    assembled = copy.deepcopy(origin)
    AssembleModifier(str(store.folder), "b").apply(assembled)
    for name in LINEAR:
        weight = assembled.get_submodule(name).weight
        assert int((weight == 0).sum()) == round(0.8 * weight.numel())
        assert not torch.equal(weight[weight != 0], before[f"{name}.weight"][weight != 0])


def test_a_resumed_loop_gives_the_same_bits(store, origin, tmp_path):
    batches = sorting.SortingData(STEPS, 8)
    whole = recipe(store, dropout=True)
    loop(origin, whole, 2 * STEPS, batches)
    first = recipe(store, dropout=True)
    other = sorting.model().eval()
    loop(other, first, STEPS + 2, batches)
    state = copy.deepcopy(first.state_dict())
    first.finalize(other)
    again = recipe(store, dropout=True)
    optimizer = torch.optim.AdamW(other.parameters())
    stepper = again.modify(other, optimizer, steps_per_epoch=STEPS)
    again.load_state_dict(state)
    for step in range(STEPS + 2, 2 * STEPS):
        loss = batches.loss(other, batches.training(0)[step % STEPS])
        stepper.loss_update(loss).backward()
        stepper.step()
    one, two = (m.modifiers[0].state_dict() for m in (whole, again))
    assert one and all(torch.equal(value, two[name]) for name, value in one.items())


def test_some_blocks_only(store, origin):
    plan = store.plan()
    modifier = BlockTuningModifier(str(store.folder), blocks=["a"])
    assert modifier.chosen(plan) == plan.blocks_of("a")
    one = plan.blocks[0]
    assert BlockTuningModifier("s", blocks=[one.block_id]).chosen(plan) == [one]
    with pytest.raises(ValueError, match="no configuration 'c'"):
        BlockTuningModifier("s", blocks=["c"]).chosen(plan)
    with pytest.raises(ValueError, match="more than max_memory 1kB"):
        BlockTuningModifier(str(store.folder), max_memory="1kB").initialize(origin)


def test_another_model_is_refused(store, origin):
    with torch.no_grad():
        origin.head.weight.zero_()
    for modifier in (
        BlockTuningModifier(str(store.folder)),
        AssembleModifier(str(store.folder), "a", "pruned"),
    ):
        with pytest.raises(DigestError, match=r"made for another model: head\.weight"):
            modifier.initialize(origin)


def test_assembling_waits_for_its_start_and_is_not_done_again(store, origin):
    before = origin.get_submodule(LINEAR[0]).weight.detach().clone()
    manager = ScheduledModifierManager(
        [AssembleModifier(str(store.folder), "a", "pruned", start_epoch=1.0)]
    )
    stepper = manager.modify(origin, torch.optim.SGD(origin.parameters(), 0.0), STEPS)
    for step in range(STEPS + 1):
        assert bool((origin.get_submodule(LINEAR[0]).weight == before).all()) == (step <= STEPS)
        stepper.step()
    assert int((origin.get_submodule(LINEAR[0]).weight == 0).sum()) == before.numel() // 2
    resumed = AssembleModifier(str(store.folder), "a", "pruned")
    moved = copy.deepcopy(origin)
    with torch.no_grad():
        moved.head.weight.mul_(2)
    resumed.initialize(moved, epoch=2.0)
    assert torch.equal(moved.head.weight, 2 * origin.head.weight)
