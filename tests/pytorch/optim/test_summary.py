"""Where a run stands, and what is said of one that ends too soon."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import RunSummary, ScheduledModifierManager, StepDriver

RECIPE = """
modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: 10.0
  - !GlobalMagnitudePruningModifier
    params: __ALL_PRUNABLE__
    init_sparsity: 0.1
    final_sparsity: 0.7
    start_epoch: 0.0
    end_epoch: 8.0
    update_frequency: 0.5
"""
PER_EPOCH = 10


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20))


@pytest.fixture
def manager():
    return ScheduledModifierManager.from_yaml(RECIPE)


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 20)).pow(2).sum().backward()
        optimizer.step()


def begin(model, manager, steps_per_epoch=PER_EPOCH, **kwargs):
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    return inner, manager.modify(model, inner, steps_per_epoch, **kwargs)


def warned(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


class TestFinalize:
    def test_it_tells_of_the_weights_that_finalize_leaves(self, model, manager):
        """Averaging, for one, may have given values to pruned weights after the last step."""
        train(model, begin(model, manager)[1], 100)
        with torch.no_grad():
            model[0].weight += 1.0
        assert manager.summary().pruning[0].now < 0.4
        manager.finalize(model)
        assert manager.summary().pruning[0].now == pytest.approx(0.7, abs=1e-3)
        assert manager.summary().position.steps == 100

    def test_a_run_to_the_end(self, model, manager, caplog):
        train(model, begin(model, manager)[1], 100)
        manager.finalize(model)
        assert warned(caplog) == [] and manager.summary().complete

    def test_steps_per_epoch_of_all_epochs(self, model, manager, caplog):
        train(model, begin(model, manager, steps_per_epoch=100)[1], 100)
        sparsity = manager.summary().pruning[0].now
        assert 0.1 < sparsity < 0.5
        manager.finalize(model)
        (message,) = warned(caplog)
        assert "stopped at step 100 of 1000, epoch 1 of 10, of 100 steps each" in message
        assert f"GlobalMagnitudePruningModifier: sparsity {sparsity:.2g} of 0.7" in message
        assert "steps_per_epoch is the number of optimizer steps in one epoch" in message

    def test_only_what_is_left_is_named(self, model, manager, caplog):
        train(model, begin(model, manager)[1], 90)
        manager.finalize(model)
        (message,) = warned(caplog)
        assert "step 90 of 100" in message and "Magnitude" not in message

    def test_the_optimizer_was_forgotten(self, model, manager, caplog):
        inner, _ = begin(model, manager)
        train(model, inner, 100)
        manager.finalize(model)
        (message,) = warned(caplog)
        assert "no optimizer step was taken" in message and "manager.modify returned" in message

    def test_the_calls_of_the_driver_were_forgotten(self, model, manager, caplog):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        manager.initialize(model)
        driver = StepDriver(model, optimizer, manager, PER_EPOCH)
        train(model, optimizer, 100)
        manager.finalize(model)
        assert len(warned(caplog)) == 1 and driver.position.steps == 0

    def test_one_shot(self, model, manager, caplog):
        manager.apply(model)
        assert warned(caplog) == []
        again = ScheduledModifierManager.from_yaml(RECIPE)
        again.initialize(model, epoch=float("inf"))
        again.finalize(model)
        assert warned(caplog) == []

    def test_without_training(self, model, manager, caplog):
        manager.initialize(model)
        manager.finalize(model)
        assert warned(caplog) == []

    def test_a_disabled_manager(self, model, manager, caplog):
        _, wrapper = begin(model, manager)
        manager.enabled = False
        train(model, wrapper, 3)
        manager.finalize(model)
        assert warned(caplog) == []

    def test_nothing_that_ends(self, model, caplog):
        manager = ScheduledModifierManager.from_yaml(
            "modifiers:\n  - !ConstantPruningModifier\n    params: __ALL_PRUNABLE__\n"
        )
        train(model, begin(model, manager)[1], 1)
        manager.finalize(model)
        assert warned(caplog) == []

    def test_resuming(self, model, manager, caplog):
        """In two parts to the end; and a state that is only looked at."""
        train(model, begin(model, manager)[1], 40)
        state = manager.state_dict()
        again, looked_at = (ScheduledModifierManager.from_yaml(RECIPE) for _ in range(2))
        for other in (again, looked_at):
            _, wrapper = begin(model, other)
            other.load_state_dict(state)
            if other is again:
                train(model, wrapper, 60)
            other.finalize(model)
        assert warned(caplog) == []
        assert again.summary().position.steps == 100
        assert "step 40 of 100" in str(looked_at.summary())

    def test_a_later_part_of_a_recipe(self, model, manager, caplog):
        train(model, begin(model, manager, epoch=9.0)[1], 10)
        manager.finalize(model)
        assert warned(caplog) == []

    def test_schedules_in_steps(self, model, caplog):
        text = RECIPE.replace("end_epoch: 8.0", "end_step: 45").replace("10.0", "3.5")
        manager = ScheduledModifierManager.from_yaml(text)
        assert "Modifier, epoch 0..step 45, step 0: " in str(manager.summary())
        train(model, begin(model, manager)[1], 40)
        manager.finalize(model)
        (message,) = warned(caplog)
        assert "step 40 of 45" in message

    def test_a_part_of_a_step(self, model, caplog):
        manager = ScheduledModifierManager.from_yaml(RECIPE.replace("10.0", "8.1"))
        train(model, begin(model, manager, steps_per_epoch=3)[1], 24)
        manager.finalize(model)
        assert "step 24 of 25" in warned(caplog)[0]


class TestSummary:
    def test_before_anything(self, model, manager):
        assert str(manager.summary()) == (
            "no optimizer step was taken\n"
            "GlobalMagnitudePruningModifier, epoch 0..8, step 0: at the end 70 %"
        )
        assert str(manager.summary(model)) == (
            "no optimizer step was taken\n"
            "GlobalMagnitudePruningModifier, epoch 0..8, step 0: now 0 %, at the end 70 %\n"
            "  2 parameters: 0.weight, 2.weight"
        )

    def test_midway(self, model, manager):
        train(model, begin(model, manager)[1], 31)
        found = manager.summary()
        zeros = sum(int((layer.weight == 0).sum()) for layer in (model[0], model[2]))
        assert isinstance(found, RunSummary) and not found.complete
        assert found.position == (31, 3.1, PER_EPOCH) and found.steps_needed == 100
        (pruning,) = found.pruning
        assert pruning.now == zeros / 800 == pytest.approx(pruning.asked, abs=1e-3)
        assert (pruning.goal, pruning.steps_done, pruning.steps_needed) == (0.7, 31, 80)
        assert pruning.params == ("0.weight", "2.weight")
        assert str(found) == (
            "step 31 of 100, epoch 3.1 of 10, of 10 steps each\n"
            "the recipe has not run to its end\n"
            "GlobalMagnitudePruningModifier, epoch 0..8, step 31 of 80: "
            f"asked for {100 * pruning.asked:.4g} %, now {100 * pruning.now:.4g} %, "
            "at the end 70 %\n"
            "  2 parameters: 0.weight, 2.weight"
        )

    def test_at_the_end(self, model, manager):
        train(model, begin(model, manager)[1], 100)
        before = manager.summary()
        manager.finalize(model)
        assert manager.summary() == before and before.complete
        assert before.pruning[0].now == pytest.approx(0.7)
        assert "has not run" not in str(before)
        manager.initialize(model)
        assert manager.summary().position is None

    def test_a_run_that_goes_on_after_the_recipe(self, model, manager, caplog):
        train(model, begin(model, manager)[1], 125)
        found = manager.summary()
        assert found.progress == (
            "step 125, epoch 12.5, of 10 steps each; the recipe ended at step 100, epoch 10"
        )
        assert found.complete and "step 80 of 80" in str(found)
        manager.finalize(model)
        assert warned(caplog) == []

    def test_parameters_of_different_sizes_and_targets(self):
        net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8))
        recipe = RECIPE.replace(
            "final_sparsity: 0.7", "final_sparsity: {0.25: ['0.weight'], 0.75: ['1.weight']}"
        )
        recipe = recipe.replace("__ALL_PRUNABLE__", "[]").replace("Global", "")
        manager = ScheduledModifierManager.from_yaml(recipe)
        train_steps = begin(net, manager)[1]
        for _ in range(100):
            train_steps.step()
        (pruning,) = manager.summary().pruning
        assert pruning.goal == pruning.now == pruning.asked == (32 * 0.25 + 64 * 0.75) / 96

    def test_many_parameters(self):
        net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(8)))
        text = str(ScheduledModifierManager.from_yaml(RECIPE).summary(net))
        assert "8 parameters: 0.weight, 1.weight" in text and text.endswith("5.weight, ...")

    def test_a_value(self, model, manager):
        begin(model, manager)
        found = manager.summary()
        assert copy.deepcopy(found) == found == pickle.loads(pickle.dumps(found))  # noqa: S301
        with pytest.raises(AttributeError):
            found.epochs = 3.0

    @pytest.mark.parametrize(
        "text",
        [
            "!ConstantPruningModifier\n    params: __ALL_PRUNABLE__",
            "!ACDCPruningModifier\n    params: __ALL_PRUNABLE__\n    compression_sparsity: 0.5\n"
            "    start_epoch: 0\n    end_epoch: 4\n    update_frequency: 1",
            "!RigLPruningModifier\n    params: __ALL_PRUNABLE__\n    final_sparsity: 0.5\n"
            "    start_epoch: 0\n    end_epoch: 4\n    update_frequency: 1",
            "!TopKASTPruningModifier\n    params: __ALL_PRUNABLE__\n    forward_sparsity: 0.5\n"
            "    backward_sparsity: 0.25\n    start_epoch: 0\n    end_epoch: 4\n"
            "    update_frequency: 1",
            "!LayerPruningModifier\n    layers: ['0']\n    start_epoch: 0\n    end_epoch: 4",
            "!EpochRangeModifier\n    start_epoch: 0\n    end_epoch: 4",
        ],
    )
    def test_every_kind(self, model, text):
        manager = ScheduledModifierManager.from_yaml(f"modifiers:\n  - {text}\n")
        batch = torch.ones(2, 20)
        sampler = {
            "data_loader_builder": lambda *_, **__: iter([([batch], {}, batch)] * 9),
            "loss_function": nn.functional.mse_loss,
        }
        _, wrapper = begin(model, manager, 2, grad_sampler=sampler)
        for summary in (manager.summary(), train(model, wrapper, 2) or manager.summary(model)):
            assert str(summary) and all(one.params for one in summary.pruning)


def test_a_manager_at_a_glance(manager):
    assert repr(manager) == (
        "ScheduledModifierManager(\n"
        "  GlobalMagnitudePruningModifier(init_sparsity=0.1, final_sparsity=0.7, "
        "params='__ALL_PRUNABLE__'), epoch 0..8\n"
        "  EpochRangeModifier(), epoch 0..10\n"
        ")"
    )
    staged = ScheduledModifierManager.from_yaml(
        "first:\n  modifiers:\n    - !SetWeightDecayModifier\n      weight_decay: 0.0\n"
        "second:\n  modifiers:\n    - !TrainableParamsModifier\n      params: [bias]\n"
        "      trainable: False\n      start_step: 5\n"
    )
    assert repr(staged) == (
        "ScheduledModifierManager(\n"
        "  first: SetWeightDecayModifier(weight_decay=0.0)\n"
        "  second: TrainableParamsModifier(params=['bias'], trainable=False), step 5..\n"
        ")"
    )


def test_of_units_that_are_removed(model):
    manager = ScheduledModifierManager.from_yaml(
        "modifiers:\n  - !StructuredPruningModifier\n    params: __STRUCTURED__\n"
        "    remove: True\n    init_sparsity: 0.0\n    final_sparsity: {params: 0.5}\n"
        "    start_epoch: 0.0\n    end_epoch: 2.0\n    update_frequency: 1.0\n"
    )
    assert str(manager.summary()).endswith("at the end 50.0% of the parameters")
    _, wrapper = begin(model, manager, 2, example_inputs=torch.ones(2, 20))
    train(model, wrapper, 5)
    summary = manager.summary()
    assert summary.sparse and summary.pruning[0].now is None
    assert "asked 50.0% of the parameters, counted" in str(summary) and "100 %" not in str(summary)
