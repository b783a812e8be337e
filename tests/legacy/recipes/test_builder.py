from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from sparseml.optim import ModifierYAML, load_recipe
from sparseml.sparsification import (
    ConstantPruningModifier,
    EpochRangeModifier,
    GMPruningModifier,
    ModifierYAMLBuilder,
    RecipeYAMLBuilder,
    to_yaml_str,
)

FRAMEWORK = "built"
for _modifier in (ConstantPruningModifier, EpochRangeModifier, GMPruningModifier):
    ModifierYAML(FRAMEWORK)(_modifier)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"), (1, "1"), (1.5, "1.5"), (True, "True"), (None, "null"),
        (["a", 1], "\n- a\n- 1"), ({"b": 1, "a": 2}, "\nb: 1\na: 2"), ([], "[]"),
    ],
)  # fmt: skip
def test_values(value: Any, text: str) -> None:
    assert to_yaml_str(value) == text


def test_fields_in_the_order_set() -> None:
    builder = ModifierYAMLBuilder(EpochRangeModifier, start_epoch=0)
    assert builder.modifier_class is EpochRangeModifier
    assert builder.start_epoch == 0 and builder.end_epoch is None
    builder.end_epoch = "eval(epochs)"
    builder.start_epoch = 1.0
    assert builder.build_yaml_str() == (
        "- !EpochRangeModifier\n  start_epoch: 1.0\n  end_epoch: eval(epochs)"
    )


def test_without_fields() -> None:
    text = ModifierYAMLBuilder(EpochRangeModifier).build_yaml_str()
    assert text == "- !EpochRangeModifier\n"


def test_other_names_are_refused() -> None:
    builder = ModifierYAMLBuilder(EpochRangeModifier)
    with pytest.raises(
        ValueError, match=r"'end_epcoh' is not a field of .*; did you mean 'end_epo"
    ):
        builder.end_epcoh = 3
    with pytest.raises(ValueError, match="'initialized' is not a field"):
        _ = builder.initialized
    with pytest.raises(ValueError):
        ModifierYAMLBuilder(EpochRangeModifier, learning_rate=3)
    assert not hasattr(builder, "nonsense")
    for clazz in (dict, EpochRangeModifier(0, 1), None):
        with pytest.raises(AssertionError, match="a modifier class is needed"):
            ModifierYAMLBuilder(clazz)  # type: ignore[arg-type]


def test_copies_are_independent() -> None:
    builder = ModifierYAMLBuilder(ConstantPruningModifier, params=["a"])
    copies = [builder.copy(), copy.deepcopy(builder), pickle.loads(pickle.dumps(builder))]  # noqa: S301
    builder.params.append("b")
    assert [other.params for other in copies] == [["a"]] * 3
    assert copy.copy(builder).params == ["a", "b"]


def test_recipe() -> None:
    recipe = RecipeYAMLBuilder({"epochs": 3})
    epochs = ModifierYAMLBuilder(EpochRangeModifier, start_epoch=0, end_epoch="eval(epochs)")
    pruner = ModifierYAMLBuilder(ConstantPruningModifier, params=["re:.*", "b"], start_epoch=1)
    same = (
        recipe.add_modifier_group("training_modifiers", [epochs])
        .add_modifier_group("empty_modifiers")
        .add_modifier_group("pruning_modifiers", [pruner, epochs])
        .set_variable("names", ["x"])
    )
    assert same is recipe
    text = recipe.build_yaml_str()
    assert text == (
        "epochs: 3\nnames:\n  - x\n\n"
        "training_modifiers:\n"
        "  - !EpochRangeModifier\n    start_epoch: 0\n    end_epoch: eval(epochs)\n\n"
        "pruning_modifiers:\n"
        "  - !ConstantPruningModifier\n    params:\n      - re:.*\n      - b\n"
        "    start_epoch: 1\n\n"
        "  - !EpochRangeModifier\n    start_epoch: 0\n    end_epoch: eval(epochs)\n"
    )
    loaded = load_recipe(text, FRAMEWORK).modifiers
    assert isinstance(loaded, list)
    assert [type(modifier) for modifier in loaded] == [
        EpochRangeModifier, ConstantPruningModifier, EpochRangeModifier,
    ]  # fmt: skip
    assert loaded[1].props(True)["params"] == ["re:.*", "b"]


def test_variables() -> None:
    recipe = RecipeYAMLBuilder({"a": 1})
    assert recipe.get_variable("a") == 1 and recipe.get_variable("b", 2) == 2
    assert recipe.has_variable("a") and not recipe.has_variable("b")


def test_groups() -> None:
    class Derived(EpochRangeModifier):
        pass

    base, derived = ModifierYAMLBuilder(EpochRangeModifier), ModifierYAMLBuilder(Derived)
    pruner = ModifierYAMLBuilder(GMPruningModifier)
    recipe = RecipeYAMLBuilder(
        modifier_groups={"a_modifiers": [base], "modifiers": [derived, pruner]}
    )
    assert recipe.get_modifier_group("modifiers") == [derived, pruner]
    assert recipe.get_modifier_group("nothing") is None
    assert recipe.get_modifier_builders() == [base, derived, pruner]
    assert recipe.get_modifier_builders(EpochRangeModifier) == [base, derived]
    assert recipe.get_modifier_builders("EpochRangeModifier") == [base]
    assert recipe.get_modifier_builders(modifier_groups="modifiers") == [derived, pruner]
    assert recipe.get_modifier_builders(GMPruningModifier, ["a_modifiers"]) == []


def test_wrong_groups() -> None:
    recipe = RecipeYAMLBuilder(modifier_groups={"modifiers": []})
    with pytest.raises(KeyError, match="already has a group 'modifiers'"):
        recipe.add_modifier_group("modifiers")
    with pytest.raises(ValueError, match="must contain 'modifiers'"):
        recipe.add_modifier_group("pruning")
    wrong: Any
    for wrong in ({"modifiers": ()}, {"modifiers": [EpochRangeModifier]}, ["modifiers"]):
        with pytest.raises(ValueError):
            RecipeYAMLBuilder(modifier_groups=wrong)
    wrong = [1]
    with pytest.raises(ValueError, match="a dict is needed, found list"):
        RecipeYAMLBuilder(variables=wrong)


def test_files(tmp_path: Path) -> None:
    builder = ModifierYAMLBuilder(EpochRangeModifier, start_epoch=0, end_epoch=2)
    recipe = RecipeYAMLBuilder(modifier_groups={"modifiers": [builder]})
    recipe.save_yaml(str(tmp_path / "new" / "a"))
    recipe.save_markdown(str(tmp_path / "b"), "# Words\n")
    recipe.save_yaml(tmp_path / "c.yml")
    for name in ("new/a.yaml", "b.md", "c.yml"):
        assert len(load_recipe(tmp_path / name, FRAMEWORK).modifiers) == 1
    assert (tmp_path / "b.md").read_text().endswith("---\n# Words\n")
