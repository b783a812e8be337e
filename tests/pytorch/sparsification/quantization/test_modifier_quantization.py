"""Quantization in recipes: loaded, printed and composed, refused when it should act."""

from __future__ import annotations

import pytest
import torch

from sparseml.optim import RecipeError
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import Modifier
from sparseml.pytorch.sparsification.quantization import QuantizationModifier
from sparseml.pytorch.sparsification.quantization.legacy_modifier_quantization import (
    QuantizationModifier as LegacyQuantizationModifier,
)
from sparseml.sparsification.types import SparsificationTypes

LEGACY = """!QuantizationModifier
    activation_bits: 8
    disable_quantization_observer_epoch: 2.0
    end_epoch: -1.0
    exclude_batchnorm: True
    freeze_bn_stats_epoch: 3.0
    model_fuse_fn_name: conv_bn_relus
    quantize_conv_activations: True
    quantize_embedding_activations: True
    quantize_embeddings: True
    quantize_linear_activations: False
    reduce_range: False
    start_epoch: 0.0
    submodules: ['blocks.0', 'blocks.2']
    tensorrt: False
    weight_bits: 8"""

CURRENT = """!QuantizationModifier
    disable_quantization_observer_epoch: 2.0
    end_epoch: -1.0
    freeze_bn_stats_epoch: 3.0
    ignore: ['classifier']
    model_fuse_fn_kwargs: {}
    num_calibration_steps: 7
    scheme: {'weights': {'num_bits': 4}}
    scheme_overrides: {'Conv2d': 'tensorrt'}
    start_epoch: 0.0
    strict: False"""

RECIPE = """
modifiers:
    - !EpochRangeModifier
        start_epoch: 0.0
        end_epoch: 4.0
    - !QuantizationModifier
        start_epoch: 2.0
        disable_quantization_observer_epoch: 3.0
        {field}
"""
CLASSES = [QuantizationModifier, LegacyQuantizationModifier]


@pytest.mark.parametrize(
    "text,clazz", [(LEGACY, LegacyQuantizationModifier), (CURRENT, QuantizationModifier)]
)
def test_text_round_trip(text, clazz):
    modifier = Modifier.load_obj(text)
    assert type(modifier) is clazz
    assert str(modifier) == text
    assert Modifier.load_obj(str(modifier)).identifier() == modifier.identifier()


@pytest.mark.parametrize(
    "field",
    [
        "submodules: ['a']", "reduce_range: True", "quantize_embeddings: False",
        "quantize_linear_activations: False", "quantize_conv_activations: False",
        "quantize_embedding_activations: False", "activation_bits: 4", "weight_bits: 4",
        "exclude_batchnorm: False", "exclude_module_types: ['Linear']",
        "custom_quantizable_module_types: ['Linear']", "activation_qconfig_kwargs: {a: 1}",
        "weight_qconfig_kwargs: {a: 1}", "tensorrt: True",
    ],
)  # fmt: skip
def test_a_field_of_the_old_form_builds_the_old_form(field):
    modifier = Modifier.load_obj(f"!QuantizationModifier\n    start_epoch: 1.0\n    {field}\n")
    assert type(modifier) is LegacyQuantizationModifier
    assert field.split(":")[0] in str(modifier)


@pytest.mark.parametrize(
    "field",
    ["scheme: default", "ignore: []", "strict: True", "freeze_bn_stats_epoch: 2.0",
     "model_fuse_fn_name: no_fuse", "num_calibration_steps: 3"],
)  # fmt: skip
def test_other_fields_build_the_current_form(field):
    modifier = Modifier.load_obj(f"!QuantizationModifier\n    start_epoch: 1.0\n    {field}\n")
    assert type(modifier) is QuantizationModifier


def test_defaults():
    modifier = QuantizationModifier()
    assert modifier.props(only_serializable=True) == {
        "end_epoch": -1.0, "ignore": [], "model_fuse_fn_kwargs": {}, "scheme_overrides": {},
        "start_epoch": -1.0, "strict": True,
    }  # fmt: skip
    legacy = LegacyQuantizationModifier()
    assert legacy.model_fuse_fn_name == "conv_bn_relus" and legacy.model_fuse_fn_kwargs == {}
    assert LegacyQuantizationModifier(tensorrt=True).model_fuse_fn_name == "no_fuse"
    legacy.model_fuse_fn_name = "other"
    assert legacy.model_fuse_fn_name == "other"
    assert modifier.sparsification_types == legacy.sparsification_types == [
        SparsificationTypes.quantization,
        SparsificationTypes.structured,
    ]  # fmt: skip


@pytest.mark.parametrize("clazz", CLASSES)
@pytest.mark.parametrize("name", ["disable_quantization_observer_epoch", "freeze_bn_stats_epoch"])
class TestSchedule:
    def test_not_before_the_start(self, clazz, name):
        with pytest.raises(ValueError, match=f"{name} must not be before start_epoch 2.0"):
            clazz(start_epoch=2.0, **{name: 1.0})
        modifier = clazz(start_epoch=2.0, **{name: 2.0})
        with pytest.raises(ValueError, match=name):
            modifier.start_epoch = 3.0

    def test_moves_with_the_start(self, clazz, name):
        modifier = clazz(start_epoch=2.0, **{name: 3.0})
        modifier.advance_epochs(10.0)
        assert (modifier.start_epoch, getattr(modifier, name)) == (12.0, 13.0)
        modifier.advance_epochs(None)
        assert getattr(modifier, name) == 13.0


@pytest.mark.parametrize("clazz", CLASSES)
class TestBoth:
    def test_has_no_end(self, clazz):
        with pytest.raises(ValueError, match="end_epoch of QuantizationModifier must be -1"):
            clazz(end_epoch=3.0)

    def test_cannot_act_yet(self, clazz):
        model = torch.nn.Linear(2, 2)
        for act in (clazz().initialize, clazz().apply, clazz().apply_structure):
            with pytest.raises(NotImplementedError, match="quantization_modifiers before training"):
                act(model)

    def test_can_be_switched_off(self, clazz):
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        manager = ScheduledModifierManager([clazz(start_epoch=0.0)])
        with pytest.raises(NotImplementedError):
            manager.modify(model, optimizer, 4)
        assert not manager.initialized
        for modifier in manager.quantization_modifiers:
            modifier.enabled = False
        manager.modify(model, optimizer, 4).step()
        manager.finalize(model)


@pytest.mark.parametrize(
    "fields,match",
    [
        ({"scheme": "tensort"}, "did you mean 'tensorrt'"),
        ({"scheme": 3}, "scheme must be"),
        ({"scheme_overrides": ["Linear"]}, "scheme_overrides must be a mapping"),
        ({"ignore": "Linear"}, "ignore must be a list"),
    ],
)
def test_wrong_values(fields, match):
    with pytest.raises(ValueError, match=match):
        QuantizationModifier(**fields)


@pytest.mark.parametrize("field", ["reduce_range: True", "strict: True"])
def test_composed_recipes_can_be_read_again(field):
    """Composing gives the endless modifiers of the first recipe an end; this one ignores it."""
    recipe = RECIPE.format(field=field)
    composed = ScheduledModifierManager.compose_staged(recipe, recipe)
    first, second = composed.quantization_modifiers
    assert (first.end_epoch, second.end_epoch) == (4.0, -1.0)
    assert (second.start_epoch, second.disable_quantization_observer_epoch) == (6.0, 7.0)
    again = ScheduledModifierManager.from_yaml(str(composed))
    assert [m.end_epoch for m in again.quantization_modifiers] == [-1.0, -1.0]
    assert again.max_epochs == composed.max_epochs


def test_errors_point_into_the_recipe():
    with pytest.raises(RecipeError, match="scheme") as caught:
        ScheduledModifierManager.from_yaml(RECIPE.format(field="scheme: defualt"))
    assert isinstance(caught.value, ValueError) and caught.value.line == 9


def test_phases():
    manager = ScheduledModifierManager.from_yaml(RECIPE.format(field="strict: True"))
    assert not manager.qat_active(1.0) and manager.qat_active(1.1)
    assert manager.phase(1.0) == "dense" and manager.phase(2.0) is None
    assert manager.phase(3.0) == "dense_quantized"


WITH_THE_REST = """modifiers:
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 2.0}
  - !QuantizationModifier {start_epoch: 0.0}
  - !SetLearningRateModifier {learning_rate: 0.25}
"""


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_the_rest_of_a_recipe_can_run(way, monkeypatch, caplog):
    model = torch.nn.Linear(2, 2)
    before = str(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager = ScheduledModifierManager.from_yaml(WITH_THE_REST)
    with pytest.raises(NotImplementedError, match=r"allow_inert=True.* SPARSEML_ALLOW_INERT=1"):
        manager.modify(model, optimizer, 4)
    if way == "environment":
        monkeypatch.setenv("SPARSEML_ALLOW_INERT", "1")
    given = {"allow_inert": True} if way == "argument" else {}
    stepper = ScheduledModifierManager.from_yaml(WITH_THE_REST).modify(model, optimizer, 4, **given)
    for _ in range(8):
        stepper.step()
    stepper.wrapped_manager.finalize(model)
    assert optimizer.param_groups[0]["lr"] == 0.25 and str(model) == before
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "QuantizationModifier does nothing in this run" in warning.getMessage()
