"""What holds for every modifier, whatever it does."""

from __future__ import annotations

import copy
import inspect
import math
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
import yaml

import sparseml.pytorch.sparsification as sparsification
from sparseml.optim import BaseModifier
from sparseml.optim.language.registration import registered_modifiers
from sparseml.pytorch.functional.composing.targets import hash_of, tensors_hash
from sparseml.pytorch.sparsification import (
    Modifier,
    ModifierProp,
    ScheduledModifier,
    ScheduledUpdateModifier,
)
from sparseml.pytorch.sparsification.composing.blocks import (
    Block,
    Plan,
    block_id,
    block_tensors,
    model_hashes,
)
from sparseml.pytorch.sparsification.composing.store import BlockStore, mask_id
from sparseml.pytorch.utils import LambdaLogger, LoggerManager

WEIGHTS = ["re:.*weight"]
RANGE = {"start_epoch": 1.0, "end_epoch": 3.0}
EVERY = {**RANGE, "update_frequency": 0.5}
GRADUAL = {**EVERY, "init_sparsity": 0.05, "final_sparsity": 0.8, "params": WEIGHTS}

STORE = str(Path(tempfile.gettempdir()) / f"sparseml-blocks-{os.getpid()}")
"""Where the blocks are of what puts models together."""

FIELDS = {
    "EpochRangeModifier": RANGE,
    "SetLearningRateModifier": {"learning_rate": 0.1, "param_groups": [0], "start_epoch": 1.0},
    "LearningRateFunctionModifier": {
        "lr_func": "linear", "init_lr": 0.1, "final_lr": 0.0, **RANGE,
    },
    "LearningRateModifier": {
        "lr_class": "MultiStepLR", "lr_kwargs": {"gamma": 0.1, "milestones": [2.0]},
        "init_lr": 0.1, "constant_logging": True, **RANGE,
    },
    "TrainableParamsModifier": {"params": WEIGHTS, "trainable": False, **RANGE},
    "SetParamModifier": {"params": ["2.bias"], "val": [0.5, 1.5], "start_epoch": 1.0},
    "GradualParamModifier": {
        "params": ["2.bias"], "init_val": [0.0, 1.0], "final_val": [1.0, 2.0],
        "inter_func": "cubic", "params_strict": False, **EVERY,
    },
    "SetWeightDecayModifier": {"weight_decay": 0.1, "start_epoch": 1.0},
    "SparsificationLoggingModifier": EVERY,
    "ConstantPruningModifier": {"params": WEIGHTS, **RANGE},
    "GMPruningModifier": GRADUAL,
    "MagnitudePruningModifier": GRADUAL,
    "GlobalMagnitudePruningModifier": {**GRADUAL, "mask_type": [1, 4]},
    "MovementPruningModifier": GRADUAL,
    "StructuredPruningModifier": {
        **GRADUAL, "mask_type": "channel", "param_groups": [["0.weight"], ["2.weight"]],
        "group_score": "matrices", "num_grads": 8, "timing_seconds": 5.0,
        "grad_sampler_kwargs": {"seed": 3},
    },
    "ACDCPruningModifier": {
        "compression_sparsity": 0.7, "params": WEIGHTS, "momentum_buffer_reset": False,
        **RANGE, "update_frequency": 1.0,
    },
    "RigLPruningModifier": {
        "final_sparsity": 0.7, "params": WEIGHTS, "sparsity_strategy": "erdos_renyi",
        "grad_sampler_kwargs": {"seed": 2}, "num_grads": 2, **EVERY,
    },
    "TopKASTPruningModifier": {
        "forward_sparsity": 0.8, "backward_sparsity": 0.5, "params": WEIGHTS,
        "active_weight_decay": 0.01, **EVERY,
    },
    "OBSPruningModifier": {
        **GRADUAL, "num_grads": 4, "damp": 1e-5, "fisher_block_size": 8, "mask_type": "block4",
        "weight_update": "joint", "num_recomputations": 2, "recomputation_inter_func": "cubic",
        "grad_sampler_kwargs": {"seed": 3}, "global_sparsity": False, "input_prior": 0.5,
        "gradients_of": "outputs",
    },
    "CAPruningModifier": {
        **GRADUAL, "num_grads": 4, "damp": 1e-5, "fisher_block_size": 16, "mask_type": "1x2",
        "fisher_inv_device": "cpu", "fisher_block_layout": "row", "fisher_samples": "sample",
        "fisher_memory": "1GB", "fisher_dtype": "float64", "blocks_in_parallel": 4,
        "traces_backup_dir": "traces",
    },
    "FastCAPruningModifier": {
        **GRADUAL, "num_grads": 4, "damp": 0.01, "fisher_block_size": 8, "mask_type": "1x2",
        "fisher_dtype": "float64", "fisher": "both", "order": "loss", "ranking": "elimination",
        "weight_update": "joint", "global_sparsity": True, "max_sparsity_per_param": 0.95,
        "min_sparsity_per_param": 0.1, "gradients_of": "outputs",
    },
    "MFACPruningModifier": {
        **GRADUAL, "num_grads": {0.0: 4, 0.5: 6}, "damp": 1e-4, "fisher_block_size": 8,
        "num_pages": 2, "available_devices": ["cpu"], "use_gradient_buffering": False,
        "grads_device": "cpu", "block_implementation": "block",
    },
    "GWProdPruningModifier": {**GRADUAL, "num_grads": 4, "global_sparsity": True},
    "SnipMomentumPruningModifier": {
        **GRADUAL, "mask_type": "2x1", "score_decay": 0.8, "score_gain": 0.5, "score_reduce": "max",
        "score_dtype": "bfloat16", "layer_types": ["Linear"], "skip_indivisible": True,
        "min_sparsity_per_param": 0.5, "inter_func": "cos", "progressive_steps": 2,
        "reg_type": "group_lasso", "reg_coeff": 1e-3, "spare_head": True,
    },
    "SRPPruningModifier": {
        "compression_rate": 0.5, "stage": 2, "decreasing": "sg", "pruning_iter": 2,
        "num_scoring_batches": 2, "ffn_ranking": "per_layer", "min_keep": 2, "keep_ratio": 0.6,
        "reference_schedule": True, "grad_sampler_kwargs": {"seed": 3}, "kd_weight": 0.5,
        "kd_temperature": 2.0, "remove": False, **RANGE,
    },
    "PatternLockModifier": {"params": WEIGHTS, "mask_type": "2x1", **RANGE},
    "GaPPruningModifier": {
        "params": WEIGHTS, "final_sparsity": 0.7, "num_steps": 2, **RANGE, "update_frequency": 1.0,
        "partitions": [["0.weight"], ["re:2.*"]], "seed": 3, "initial_mask": "random",
        "reset_optimizer_state": "grown", "mask_gradients": False, "num_partitions": 2,
    },
    "BlockTuningModifier": {
        "store": STORE, "blocks": ["small"], "loss": "cosine", "lr": 0.01, "weight_decay": 0.1,
        "decay": "cosine", "patience": 2, "max_memory": "1GB", "teacher_dropout": True,
        "dropout": True, "seed": 3, **RANGE,
    },
    "AssembleModifier": {
        "store": STORE, "config": "small", "source": "pruned", "start_epoch": 1.0,
    },
    "LayerPruningModifier": {"layers": ["1"], **EVERY},
    "LayerThinningModifier": {
        "param_group_dependency_map": {"0.weight,0.bias": ["2.weight"]},
        "structure_type": "filter", "update_epochs": [4.0, 4.5], "start_epoch": 1.0,
    },
    "PowerpropagationModifier": {"params": WEIGHTS, "alpha": 2.0, **RANGE},
    "ASRegModifier": {
        "layers": ["1", "2"], "alpha": [0.1, 0.2], "layer_normalized": True, "reg_func": "hs",
        "reg_tens": "out", **EVERY,
    },
    "DistillationModifier": {
        "hardness": 0.7, "temperature": 3.0, "distill_output_keys": [0],
        "teacher_input_keys": ["x"], "update_frequency": -1.0, "mask_padding": True, **RANGE,
    },
    "HiddenStateDistillationModifier": {
        "weight": 2.0, "layer": 3, "replace_task_loss": False, "mask_padding": True, **RANGE,
    },
    "PerLayerDistillationModifier": {
        "gain": 2.0, "normalize": False, "student_layer_names": ["0", "2"],
        "teacher_layer_names": ["2", "4"], "project_features": False, "epsilon": 0.1, **RANGE,
    },
}  # fmt: skip
"""The fields of a recipe for every modifier that acts between epoch 1 and 3 (or from 1 on)."""


def samples(seed=0):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield [torch.randn(3, 4, generator=generator)], {}, torch.ones(())


SAMPLER = {
    "data_loader_builder": samples,
    "loss_fn": lambda output, target: (output - target).sum(),
}
"""What modifiers get that need gradients, and others do not mind."""

GIVEN = {"grad_sampler": SAMPLER, "distillation_teacher": "disable"}

NAMES = sorted(FIELDS)
UPDATES = [n for n in NAMES if issubclass(getattr(sparsification, n), ScheduledUpdateModifier)]


def make(name, **changes):
    return getattr(sparsification, name)(**{**FIELDS[name], **changes})


def as_yaml(name):
    return f"!{name} {yaml.safe_dump(FIELDS[name], default_flow_style=True)}"


@pytest.fixture
def model():
    return small_model()


def small_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


@pytest.fixture(scope="module", autouse=True)
def blocks():
    """A store with the pruned blocks of the model."""
    model = small_model()
    masks = {"0.weight": torch.arange(32).reshape(8, 4) % 2 == 0}
    origin = tensors_hash(block_tensors(model, ["0"]))
    known = [("0",), origin, {"target": {"0.weight": 16}}]
    block = Block(block_id(*known), *known, mask_id(masks, {}), used_by=("small",))
    hashes = model_hashes(model)
    base = {"model": "m", "weights": None, "digest": hash_of(hashes), "tensors": hashes}
    store = BlockStore(STORE)
    store.adopt(Plan(base, (block,), ({"name": "small", "blocks": [block.block_id]},), {}))
    tensors = block_tensors(model, ["0"])
    tensors["0.weight"] = tensors["0.weight"] * masks["0.weight"]
    store.prune(block, tensors, masks)
    yield
    shutil.rmtree(STORE)


@pytest.fixture
def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)


@pytest.fixture
def loggers():
    return LoggerManager([LambdaLogger(lambda **_: None)], log_frequency=0.0, log_python=False)


def train_step(modifier, model, optimizer, epoch, steps_per_epoch=4):
    """All calls of one optimizer step, in order; whether an update was due."""
    args = (model, optimizer, epoch, steps_per_epoch)
    loss = modifier.loss_update(model(torch.ones(2, 4)).pow(2).sum(), *args)
    optimizer.zero_grad()
    loss.backward()
    due = modifier.update_ready(epoch, steps_per_epoch)
    if due:
        modifier.scheduled_update(*args)
        modifier.scheduled_log_update(*args)
    modifier.optimizer_pre_step(*args)
    optimizer.step()
    modifier.optimizer_post_step(*args)
    return due


def test_no_modifier_is_forgotten():
    ours = {
        name
        for name, registration in registered_modifiers("pytorch").items()
        if registration.clazz.__module__.startswith("sparseml.")
    }
    assert ours - {"QuantizationModifier"} == set(NAMES)
    assert ours <= set(sparsification.__all__)


@pytest.mark.parametrize("name", NAMES)
class TestFields:
    def test_recipe_and_python_agree(self, name):
        loaded, built = Modifier.load_obj(as_yaml(name)), make(name)
        assert type(loaded) is type(built)
        assert loaded.props(only_serializable=True) == built.props(only_serializable=True)
        assert loaded.identifier() == built.identifier()
        assert str(loaded) == str(built)

    def test_text_round_trip(self, name):
        modifier = make(name)
        again = Modifier.load_obj(str(modifier))
        assert str(again) == str(modifier)
        assert again.identifier("x") == modifier.identifier() + "-x"

    def test_text_has_tag_and_given_fields_in_order(self, name):
        lines = str(make(name)).split("\n")
        assert lines[0] == f"!{name}"
        fields = [line.strip().split(":")[0] for line in lines[1:]]
        assert fields == sorted(fields)
        assert set(FIELDS[name]) <= set(fields)
        assert "pytorch" not in str(make(name)) and "pytorch" not in repr(make(name))
        assert repr(make(name)).startswith(f"{name}(")

    def test_serialised_fields_are_arguments(self, name):
        arguments = inspect.signature(getattr(sparsification, name).__init__).parameters
        assert set(make(name).props(only_serializable=True)) <= set(arguments)

    def test_fields_are_frozen_once_initialised(self, name, model):
        modifier = make(name)
        modifier.initialize(model, **GIVEN)
        for field in modifier.props(only_serializable=True):
            with pytest.raises(AttributeError):
                setattr(modifier, field, getattr(modifier, field))
        modifier.enabled = False
        assert not modifier.enabled

    def test_fields_can_be_set_before(self, name):
        modifier = make(name)
        for field, value in modifier.props(only_serializable=True).items():
            prop = getattr(type(modifier), field)
            assert isinstance(prop, ModifierProp)
            if prop._func_set is not None:
                setattr(modifier, field, value)
        assert str(modifier) == str(make(name))

    def test_unknown_and_missing_fields(self, name):
        with pytest.raises(TypeError):
            make(name, unknown_field=1)
        with pytest.raises(TypeError, match=f"!{name}.*unknown_field|unknown_field.*!{name}"):
            Modifier.load_obj(as_yaml(name).replace("{", "{unknown_field: 1, ", 1))

    def test_end_before_start(self, name):
        if "end_epoch" not in FIELDS[name]:
            pytest.skip("does not end")
        with pytest.raises(ValueError, match="end_epoch"):
            make(name, end_epoch=0.5)

    def test_documented(self, name):
        clazz = getattr(sparsification, name)
        assert f"!{name}" in clazz.__doc__
        for field, prop in inspect.getmembers(clazz, lambda m: isinstance(m, ModifierProp)):
            assert prop.__doc__, field

    def test_in_steps(self, name):
        steps = {f.replace("epoch", "step"): int(v * 4) for f, v in FIELDS[name].items()
                 if f in ("start_epoch", "end_epoch")}  # fmt: skip
        fields = {f: v for f, v in FIELDS[name].items() if f not in ("start_epoch", "end_epoch")}
        modifier = getattr(sparsification, name)(**fields, **steps)
        assert Modifier.load_obj(str(modifier)).identifier() == modifier.identifier()
        identifier = modifier.identifier()
        modifier.resolve_steps(4)
        assert (modifier.start_epoch, modifier.end_epoch) == (
            1.0,
            FIELDS[name].get("end_epoch", -1.0),
        )
        assert modifier.identifier() == identifier


@pytest.mark.parametrize("name", NAMES)
class TestLifeCycle:
    def test_classes(self, name):
        clazz = getattr(sparsification, name)
        assert issubclass(clazz, (Modifier, ScheduledModifier, BaseModifier))

    def test_needs_initialize(self, name, model, optimizer):
        modifier, args = make(name), (model, optimizer, 1.0, 4)
        calls = [
            lambda: modifier.start_pending(1.0, 4),
            lambda: modifier.end_pending(1.0, 4),
            lambda: modifier.update_ready(1.0, 4),
            lambda: modifier.update(*args),
            lambda: modifier.scheduled_update(*args),
            lambda: modifier.log_update(*args),
            lambda: modifier.scheduled_log_update(*args),
            lambda: modifier.loss_update(torch.zeros(()), *args),
            lambda: modifier.optimizer_pre_step(*args),
            lambda: modifier.optimizer_post_step(*args),
            lambda: modifier.finalize(model),
        ]
        for call in calls:
            with pytest.raises(RuntimeError):
                call()

    def test_starts_and_ends_on_time(self, name, model, optimizer, loggers):
        modifier = make(name)
        modifier.initialize(model, 0.0, loggers, unknown=1, **GIVEN)
        updates = [train_step(modifier, model, optimizer, step / 4) for step in range(20)]
        assert updates[:4] == [False] * 4 and updates[4]
        assert modifier.started
        ends = modifier.end_epoch > 0
        assert modifier.ended == ends
        if ends:
            assert updates[12] and not any(updates[13:])
        modifier.finalize(model, unknown=1)
        assert not modifier.initialized

    def test_updates_only_through_the_schedule(self, name, model, optimizer):
        modifier = make(name)
        modifier.initialize(model, **GIVEN)
        for call in (modifier.update, modifier.log_update):
            with pytest.raises(RuntimeError):
                call(model, optimizer, 1.0, 4)

    def test_started_set_from_outside(self, name, model):
        modifier = make(name)
        modifier.initialize(model, **GIVEN)
        modifier._started = True
        assert not modifier.start_pending(2.0, 4)
        assert modifier.end_pending(3.0, 4) == modifier.update_ready(3.0, 4) or name in UPDATES
        assert modifier.end_pending(3.0, 4) == (modifier.end_epoch == 3.0)

    def test_disabled(self, name, model, optimizer):
        modifier = make(name)
        modifier.initialize(model, **GIVEN)
        modifier.enabled = False
        assert not modifier.update_ready(1.0, 4)
        assert not modifier.start_pending(1.0, 4) and not modifier.end_pending(9.0, 4)
        for call in (modifier.scheduled_update, modifier.scheduled_log_update):
            with pytest.raises(RuntimeError):
                call(model, optimizer, 1.0, 4)
        for call in (modifier.optimizer_pre_step, modifier.optimizer_post_step):
            with pytest.raises(RuntimeError):
                call(model, optimizer, 1.0, 4)

    def test_one_shot(self, name, model):
        modifier = make(name)
        modifier.apply(model, unknown=1, **GIVEN)
        assert not modifier.initialized
        modifier.apply(model, math.inf, finalize=False, **GIVEN)
        assert modifier.initialized

    def test_leaves_no_trace_in_the_model(self, name, model, optimizer):
        keys, modules = list(model.state_dict()), list(model.modules())
        modifier = make(name)
        modifier.initialize(model, **GIVEN)
        for step in range(16):
            train_step(modifier, model, optimizer, step / 4)
        assert list(model.state_dict()) == keys and list(model.modules()) == modules
        modifier.finalize(model)
        for module in modules:
            assert not module._forward_hooks and not module._forward_pre_hooks

    def test_state_round_trip(self, name, model):
        modifier, again = make(name), make(name)
        modifier.initialize(model, **GIVEN)
        again.initialize(copy.deepcopy(model), **GIVEN)
        state = modifier.state_dict()
        again.load_state_dict(state)
        with pytest.raises(IndexError):
            again.load_state_dict({**state, "unknown": torch.ones(1)})
        again.load_state_dict({**state, "unknown": torch.ones(1)}, strict=False)
        again.load_progress_state(modifier.progress_state())

    def test_copies_and_pickles(self, name):
        modifier = make(name)
        for twin in (copy.deepcopy(modifier), pickle.loads(pickle.dumps(modifier))):  # noqa: S301
            assert str(twin) == str(modifier) and twin is not modifier


@pytest.mark.parametrize("name", UPDATES)
def test_update_remembers_its_epoch(name, model, optimizer):
    modifier = make(name)
    assert modifier._last_update_epoch == -1.0
    modifier.initialize(model, **GIVEN)
    train_step(modifier, model, optimizer, 1.0)
    assert modifier._last_update_epoch == 1.0
