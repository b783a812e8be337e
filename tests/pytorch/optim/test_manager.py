"""The manager: from recipes to modifiers that act."""

from __future__ import annotations

import copy
import gc
import math
import pickle
from unittest.mock import MagicMock

import pytest
import torch

from sparseml.optim import BaseManager
from sparseml.pytorch.optim import RecipeManagerStepWrapper, ScheduledModifierManager
from sparseml.pytorch.sparsification import (
    EpochRangeModifier,
    Modifier,
    ScheduledModifier,
    SetLearningRateModifier,
    SetWeightDecayModifier,
    TrainableParamsModifier,
)
from sparseml.pytorch.utils import LambdaLogger, LoggerManager

RECIPE = """
end: 3.0
modifiers:
    - !EpochRangeModifier
        start_epoch: 0.0
        end_epoch: eval(end)
    - !SetLearningRateModifier
        start_epoch: 1.0
        learning_rate: 0.1
"""
STAGED = """
first:
  first_modifiers:
    - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 2.0}
second:
  second_modifiers:
    - !EpochRangeModifier {start_epoch: 2.0, end_epoch: 4.0}
    - !SetWeightDecayModifier {start_epoch: 2.5, weight_decay: 0.25}
"""


class Noting(ScheduledModifier):
    """Notes every call, with its name, into a list shared by several."""

    calls: list

    def __init__(self, name, start_epoch=-1.0, end_epoch=-1.0):
        super().__init__(start_epoch=start_epoch, end_epoch=end_epoch, end_comparator=-1)
        self.name = name

    def identifier(self, extra=""):
        return f"Noting-{self.name}"


for _method in (
    "initialize", "finalize", "update", "log_update", "loss_update", "optimizer_pre_step",
    "optimizer_post_step", "apply_structure", "state_dict", "load_state_dict",
):  # fmt: skip

    def _noted(self, *args, _method=_method, **kwargs):
        self.calls.append((_method, self.name, args, kwargs))
        return getattr(ScheduledModifier, _method)(self, *args, **kwargs)

    setattr(Noting, _method, _noted)


@pytest.fixture
def noting():
    calls = []

    def make(name, *args):
        modifier = Noting(name, *args)
        modifier.calls = calls
        return modifier

    make.calls = calls
    make.names = lambda: [(method, name) for method, name, _, _ in calls]
    return make


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


@pytest.fixture
def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.5)


class TestFromYaml:
    def test_reads_a_recipe(self):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        assert isinstance(manager, (BaseManager, Modifier))
        assert [type(m).__name__ for m in manager.modifiers] == [
            "EpochRangeModifier",
            "SetLearningRateModifier",
        ]
        assert manager.metadata == {"__metadata__": None}
        assert (manager.min_epochs, manager.max_epochs) == (0, 3)

    def test_modifiers_of_a_temporary_manager(self):
        modifiers = ScheduledModifierManager.from_yaml(RECIPE).modifiers
        gc.collect()
        assert len(modifiers) == 2

    def test_always_a_manager_of_this_class(self):
        class Sub(ScheduledModifierManager):
            pass

        assert type(Sub.from_yaml(RECIPE)) is ScheduledModifierManager

    def test_reads_files(self, tmp_path):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE)
        for given in (path, str(path)):
            assert ScheduledModifierManager.from_yaml(given) == ScheduledModifierManager.from_yaml(
                RECIPE
            )

    @pytest.mark.parametrize("variables", [{"end": 7}, '{"end": 7}', "end=7"])
    def test_variables(self, variables):
        assert ScheduledModifierManager.from_yaml(RECIPE, None, variables).max_epochs == 7

    def test_metadata_notes_versions(self):
        manager = ScheduledModifierManager.from_yaml(RECIPE, metadata={"author": "me"})
        entry = manager.metadata["__metadata__"]
        assert entry["author"] == "me"
        assert entry["framework_metadata"]["torch_version"] == torch.__version__

    def test_more_modifiers(self):
        more = [EpochRangeModifier(0.0, 9.0)]
        manager = ScheduledModifierManager.from_yaml(RECIPE, more)
        assert manager.max_epochs == 9 and len(manager.modifiers) == 3
        with pytest.raises(ValueError, match="recipe has no stages"):
            ScheduledModifierManager.from_yaml(RECIPE, {"first": more})

    def test_more_modifiers_for_stages(self):
        more = [EpochRangeModifier(0.0, 9.0)]
        manager = ScheduledModifierManager.from_yaml(STAGED, more)
        assert [len(stage) for stage in manager.modifiers.values()] == [1, 3]
        manager = ScheduledModifierManager.from_yaml(STAGED, {"first": more})
        assert sorted(len(stage) for stage in manager.modifiers.values()) == [2, 2]
        assert len(manager.modifiers["first"]) == 2
        with pytest.raises(ValueError, match=r"stages third, the recipe has"):
            ScheduledModifierManager.from_yaml(STAGED, {"third": more})

    def test_text_round_trip(self):
        for recipe in (RECIPE, STAGED):
            manager = ScheduledModifierManager.from_yaml(recipe)
            assert ScheduledModifierManager.from_yaml(str(manager)) == manager

    def test_copies_and_pickles(self, model, optimizer):
        manager = ScheduledModifierManager.from_yaml(STAGED)
        wrapper = manager.modify(model, optimizer, 4)
        wrapper.step()
        twin = copy.deepcopy(manager)
        assert twin == manager and twin.state_dict() == manager.state_dict()
        plain = ScheduledModifierManager.from_yaml(STAGED)
        assert pickle.loads(pickle.dumps(plain)) == manager  # noqa: S301


class TestInitialize:
    def test_only_modifiers_not_yet_initialised(self, model, noting):
        first, second = noting("first"), noting("second")
        first.initialize(model)
        manager = ScheduledModifierManager([first, second])
        loggers = LoggerManager(log_python=False)
        manager.initialize(model, 2.0, loggers, grad_sampler="given")
        assert noting.calls[1:] == [
            ("initialize", "second", (model, 2.0, loggers), {"grad_sampler": "given"})
        ]
        assert manager.initialized and manager.loggers is first.loggers is loggers

    def test_one_set_of_loggers_for_all(self, model, noting):
        manager = ScheduledModifierManager({"a": [noting("a")], "b": [noting("b")]})
        logger = LambdaLogger(lambda **_: None)
        manager.initialize_loggers([logger])
        first, second = manager.iter_modifiers()
        assert logger in list(manager.loggers)
        assert first.loggers is second.loggers is manager.loggers
        manager.initialize(model)
        assert first.loggers is second.loggers is manager.loggers

    @pytest.mark.parametrize("name", ["initialize", "apply"])
    def test_failure_leaves_nothing_initialised(self, model, noting, name):
        """Else the next try would leave out what the first one had begun."""
        manager = ScheduledModifierManager(
            {
                "one": [noting("a"), TrainableParamsModifier(["bias"], False)],
                "two": [noting("b"), TrainableParamsModifier(["other"], False)],
            }
        )
        with pytest.raises(RuntimeError, match="matches no parameter"):
            getattr(manager, name)(model)
        assert not manager.initialized
        assert not any(modifier.initialized for modifier in manager.iter_modifiers())
        model.other = torch.nn.Parameter(torch.ones(1))
        getattr(manager, name)(model)
        again = [call for call in noting.names() if call[0] == "initialize"]
        assert again == [("initialize", one) for one in "abab"]

    def test_finalize(self, model, noting):
        manager = ScheduledModifierManager([noting("a"), noting("b")])
        with pytest.raises(RuntimeError, match="before initialize"):
            manager.finalize(model)
        manager.initialize(model)
        noting.calls.clear()
        manager.finalize(model, reset_loggers=False, extra=1)
        assert noting.calls == [
            ("finalize", "a", (model, False), {"extra": 1}),
            ("finalize", "b", (model, False), {"extra": 1}),
        ]
        assert not manager.initialized
        with pytest.raises(RuntimeError, match="after finalize"):
            manager.finalize(model)

    def test_deleting_the_manager_leaves_its_modifiers(self, model, noting):
        modifier = noting("a")
        manager = ScheduledModifierManager([modifier])
        manager.initialize(model)
        del manager
        gc.collect()
        assert modifier.initialized


class TestApply:
    def test_plain_recipe_one_after_another(self, model, noting):
        manager = ScheduledModifierManager([noting("a"), noting("b")])
        manager.apply(model, extra=1)
        assert noting.names() == [
            ("initialize", "a"), ("finalize", "a"), ("initialize", "b"), ("finalize", "b"),
        ]  # fmt: skip
        method, _, (_, epoch, _), kwargs = noting.calls[0]
        assert (method, epoch, kwargs) == ("initialize", math.inf, {"extra": 1})
        assert noting.calls[1][2:] == ((model,), {"extra": 1})

    def test_stage_by_stage(self, model, noting):
        stages = {"x": [noting("a"), noting("b")], "y": [noting("c", 5.0, 6.0)]}
        manager = ScheduledModifierManager(stages)
        order = list(manager.modifiers)
        manager.apply(model)
        groups = {"x": ["initialize a", "initialize b", "finalize a", "finalize b"],
                  "y": ["initialize c", "finalize c"]}  # fmt: skip
        assert [f"{m} {n}" for m, n in noting.names()] == groups[order[0]] + groups[order[1]]

    def test_manager_can_train_afterwards(self, model, optimizer, noting):
        manager = ScheduledModifierManager([noting("a")])
        manager.apply(model)
        assert not manager.initialized
        noting.calls.clear()
        manager.modify(model, optimizer, 4)
        assert noting.names() == [("initialize", "a")]

    def test_without_finalising(self, model, noting):
        manager = ScheduledModifierManager([noting("a")])
        manager.apply(model, finalize=False)
        assert manager.initialized and noting.names() == [("initialize", "a")]
        manager.finalize(model)

    def test_apply_structure(self, model, noting):
        manager = ScheduledModifierManager([noting("a")])
        manager.apply_structure(model, 3.0, extra=1)
        assert noting.calls == [("apply_structure", "a", (model, 3.0, None, False), {"extra": 1})]
        assert not manager.initialized


class TestSteps:
    def test_order_of_calls(self, model, optimizer, noting, monkeypatch):
        manager = ScheduledModifierManager([noting("a", 0.0, 1.0), noting("b", 0.25, 2.0)])
        monkeypatch.setattr(
            optimizer, "step", lambda *args: noting.calls.append(("step", "", args, {}))
        )
        wrapper = manager.modify(
            model, optimizer, 4, loggers=LoggerManager([LambdaLogger(lambda **_: None)])
        )
        loss = torch.ones(())
        noting.calls.clear()
        assert wrapper.loss_update(loss) is loss
        wrapper.step()
        wrapper.step()
        assert noting.names() == [
            ("loss_update", "a"), ("loss_update", "b"),
            ("update", "a"), ("log_update", "a"),
            ("optimizer_pre_step", "a"), ("optimizer_pre_step", "b"),
            ("step", ""),
            ("optimizer_post_step", "a"), ("optimizer_post_step", "b"),
            ("update", "b"), ("log_update", "b"),
            ("optimizer_pre_step", "a"), ("optimizer_pre_step", "b"),
            ("step", ""),
            ("optimizer_post_step", "a"), ("optimizer_post_step", "b"),
        ]  # fmt: skip
        epochs = {args[-2] for method, _, args, _ in noting.calls[2:7] if method != "step"}
        assert epochs == {0.0}

    def test_disabled_modifiers_are_left_out(self, model, optimizer, noting):
        manager = ScheduledModifierManager([noting("a"), noting("b")])
        wrapper = manager.modify(model, optimizer, 4)
        manager.modifiers[0].enabled = False
        noting.calls.clear()
        wrapper.loss_update(torch.ones(()))
        wrapper.step()
        assert {name for _, name in noting.names()} == {"b"}

    def test_updates_without_logging(self, model, optimizer, noting):
        manager = ScheduledModifierManager([noting("a")])
        manager.initialize(model)
        noting.calls.clear()
        manager.update(model, optimizer, 0.0, 4, log_updates=False)
        assert noting.names() == [("update", "a")]

    def test_extra_arguments_reach_the_loss(self, model, optimizer, noting):
        manager = ScheduledModifierManager([noting("a")])
        manager.initialize(model)
        manager.loss_update(torch.ones(()), model, optimizer, 0.0, 4, student_outputs=1)
        assert noting.calls[-1][3] == {"student_outputs": 1}

    @pytest.mark.parametrize("name", ["update", "optimizer_pre_step", "optimizer_post_step"])
    def test_needs_initialize_and_enabled(self, name, model, optimizer):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        args = (model, optimizer, 0.0, 4)
        with pytest.raises(RuntimeError, match="initialize"):
            getattr(manager, name)(*args)
        with pytest.raises(RuntimeError, match="initialize"):
            manager.loss_update(torch.ones(()), *args)
        manager.initialize(model)
        manager.enabled = False
        with pytest.raises(RuntimeError, match="disabled"):
            getattr(manager, name)(*args)

    def test_anything_with_a_modifiers_methods(self, model, optimizer):
        modifier = MagicMock(enabled=True, start_epoch=0.0, end_epoch=1.0)
        modifier.identifier.return_value = "mocked"
        manager = ScheduledModifierManager([modifier])
        manager.initialize(model)
        manager.update(model, optimizer, 0.0, 4)
        modifier.scheduled_update.assert_called_once_with(model, optimizer, 0.0, 4)
        modifier.update_ready.return_value = False
        manager.update(model, optimizer, 0.25, 4)
        modifier.scheduled_update.assert_called_once()

    def test_a_modifier_without_schedule(self, model, optimizer):
        class Doubling(Modifier):
            def loss_update(self, loss, *args, **kwargs):
                return 2 * super().loss_update(loss, *args, **kwargs)

        modifier = Doubling()
        manager = ScheduledModifierManager([EpochRangeModifier(0.0, 1.0)])
        manager.modifiers.append(modifier)
        wrapper = manager.modify(model, optimizer, 4)
        assert wrapper.loss_update(torch.ones(())) == 2
        wrapper.step()


class TestModify:
    def test_initialises_if_needed(self, model, optimizer, noting):
        manager = ScheduledModifierManager([noting("a")])
        wrapper = manager.modify(model, optimizer, 4, epoch=1.25, grad_sampler="given")
        assert isinstance(wrapper, RecipeManagerStepWrapper)
        method, _, (_, epoch, _), kwargs = noting.calls[0]
        assert (method, epoch, kwargs) == ("initialize", 1.25, {"grad_sampler": "given"})
        assert (wrapper.wrapped_epoch, wrapper.wrapped_steps) == (1.25, 5)
        manager.modify(model, optimizer, 4)
        assert len(noting.calls) == 1

    def test_epoch_of_initialize_is_the_default(self, model, optimizer):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        manager.initialize(model, epoch=2.5)
        assert manager.modify(model, optimizer, 4).wrapped_epoch == 2.5
        assert manager.modify(model, optimizer, 4, epoch=1.0).wrapped_epoch == 1.0

    @pytest.mark.parametrize(
        ("steps", "expected"),
        [(0, "greater than 0"), (-1, "greater than 0"), ([1], r"a number, .* found a list")],
    )
    def test_steps_per_epoch_must_be_positive(self, model, optimizer, steps, expected):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        with pytest.raises((ValueError, TypeError), match=f"steps_per_epoch must be {expected}"):
            manager.modify(model, optimizer, steps)
        assert not manager.initialized

    @pytest.mark.parametrize("allowed", [True, False])
    def test_parallel_modules(self, model, optimizer, allowed):
        parallel = torch.nn.DataParallel(model)
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        wrapper = manager.modify(parallel, optimizer, 4, allow_parallel_module=allowed)
        assert wrapper.wrapped_module is (parallel if allowed else model)

    def test_resolves_steps_and_sorts_by_them(self, model, optimizer):
        late = SetLearningRateModifier(0.25, start_step=6)
        early = SetWeightDecayModifier(0.5, start_epoch=1.0)
        manager = ScheduledModifierManager([late, early, EpochRangeModifier(0.0, 3.0)])
        wrapper = manager.modify(model, optimizer, 4)
        assert late.steps_resolved and late.start_epoch == 1.5
        assert [type(m).__name__ for m in manager.modifiers] == [
            "EpochRangeModifier", "SetWeightDecayModifier", "SetLearningRateModifier",
        ]  # fmt: skip
        seen = []
        for _ in range(8):
            wrapper.step()
            seen.append(
                (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"])
            )
        assert seen == [(0.5, 0)] * 4 + [(0.5, 0.5)] * 2 + [(0.25, 0.5)] * 2

    def test_initialize_can_resolve_steps(self, model):
        modifier = TrainableParamsModifier(["bias"], False, start_step=0)
        manager = ScheduledModifierManager([modifier])
        manager.initialize(model, steps_per_epoch=4)
        assert modifier.steps_resolved and not model.bias.requires_grad


class TestState:
    def identifiers(self, manager):
        return [modifier.identifier() for modifier in manager.iter_modifiers()]

    def test_plain(self, model):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        assert manager.state_dict() == {name: {} for name in self.identifiers(manager)}
        manager.initialize(model)
        assert "__progress__" not in manager.state_dict()
        manager.load_state_dict(manager.state_dict())

    def test_staged(self):
        manager = ScheduledModifierManager.from_yaml(STAGED)
        state = manager.state_dict()
        assert list(state) == ["first", "second"]
        assert sum(len(stage) for stage in state.values()) == 3
        manager.load_state_dict(state)
        for wrong in ({"first": state["first"]}, {**state, "third": {}}, {}):
            with pytest.raises(IndexError, match="does not belong to this recipe"):
                manager.load_state_dict(wrong)
            manager.load_state_dict(wrong, strict=False)
        with pytest.raises(IndexError, match="does not belong"):
            manager.load_state_dict({**state, "first": {}})

    def test_keys_must_fit(self):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        state = manager.state_dict()
        first = self.identifiers(manager)[0]
        for wrong in ({**state, "unknown": {}}, {k: v for k, v in state.items() if k != first}):
            with pytest.raises(IndexError, match=f"{first}|unknown"):
                manager.load_state_dict(wrong)
            manager.load_state_dict(wrong, strict=False)

    def test_strictness_reaches_the_modifiers(self):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        state = {name: {"unknown": 1} for name in self.identifiers(manager)}
        with pytest.raises(IndexError, match="keeps no state"):
            manager.load_state_dict(state)
        manager.load_state_dict(state, strict=False)

    def test_settings_are_part_of_the_keys(self, model, optimizer):
        run = ScheduledModifierManager.from_yaml(RECIPE)
        run.modify(model, optimizer, 4).step()
        changed = ScheduledModifierManager.from_yaml(RECIPE, None, {"end": 4.0})
        changed.initialize(copy.deepcopy(model))
        with pytest.raises(IndexError, match="does not belong to this recipe"):
            changed.load_state_dict(run.state_dict())

    def test_without_a_run_the_only_modifier_of_a_class_is_known_by_it(self, caplog):
        first, *others = (EpochRangeModifier(0.0, end) for end in (1.0, 2.0, 3.0))
        manager = ScheduledModifierManager([first, *others])
        state = manager.state_dict()
        old = "EpochRangeModifier-0123456789abcdef0123456789abcdef"
        renamed = {old if key == first.identifier() else key: part for key, part in state.items()}
        manager.load_state_dict(renamed)
        assert f"the state of {old} is taken for that of {first.identifier()}" in caplog.text
        two = {old: {}, old.replace("0123", "3210"): {}, others[0].identifier(): {}}
        with pytest.raises(IndexError, match="does not belong to this recipe"):
            manager.load_state_dict(two)

    def test_progress_of_a_run(self, model, optimizer):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        wrapper = manager.modify(model, optimizer, 4)
        for _ in range(6):
            wrapper.step()
        progress = manager.state_dict()["__progress__"]
        assert (progress["steps"], progress["epoch"]) == (6, 1.5)
        assert list(progress["modifiers"]) == self.identifiers(manager)
        manager.finalize(model)
        assert "__progress__" not in manager.state_dict()

    def test_progress_needs_initialize(self, model, optimizer):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        manager.modify(model, optimizer, 4).step()
        with pytest.raises(RuntimeError, match="initialize"):
            ScheduledModifierManager.from_yaml(RECIPE).load_state_dict(manager.state_dict())

    @pytest.mark.parametrize("loaded_first", [True, False])
    @pytest.mark.parametrize("per_epoch,steps", [(4, 6), (8, 12)])
    def test_step_count_comes_back(self, model, optimizer, loaded_first, per_epoch, steps):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        wrapper = manager.modify(model, optimizer, 4)
        for _ in range(6):
            wrapper.step()
        again = ScheduledModifierManager.from_yaml(RECIPE)
        if loaded_first:
            again.initialize(model)
            again.load_state_dict(manager.state_dict())
        wrapper = again.modify(model, optimizer, per_epoch)
        if not loaded_first:
            again.load_state_dict(manager.state_dict())
        assert (wrapper.wrapped_epoch, wrapper.wrapped_steps) == (1.5, steps)
        assert again.modify(model, optimizer, 4, epoch=2.0).wrapped_steps == 8

    def test_run_without_a_wrapper(self, model, optimizer):
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        manager.initialize(model)
        manager.update(model, optimizer, 1.0, 4)
        assert set(manager.state_dict()["__progress__"]) == {"modifiers"}
        manager.optimizer_post_step(model, optimizer, 1.0, 4)
        state = manager.state_dict()
        again = ScheduledModifierManager.from_yaml(RECIPE)
        wrapper = again.modify(model, optimizer, 4, epoch=9.0)
        again.load_state_dict(state)
        assert wrapper.wrapped_epoch == 1.25 and again.state_dict() == state
        assert all(modifier.started for modifier in again.modifiers)
