"""What users read when a recipe is wrong: where, what, and what was perhaps meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparseml.optim import BaseModifier, ModifierYAML, RecipeError

TagError = yaml.constructor.ConstructorError
RANGE = "{start_epoch: 0.0, end_epoch: 3.5}"

RECIPE = """\
# a comment
epochs: 10
pruning_modifiers:
  - !GMPruningModifier
    params: [a.weight]
    init_sparsity: 0.05
    final_sparsity: 0.8
    start_epoch: 1.0
    end_epoch: eval(epochs)
    update_frequency: 0.5
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 3.5}
"""


@pytest.mark.parametrize(
    ("old", "new", "kind", "text"),
    [
        ("final_sparsity", "final_sparisty", TypeError,
            ":7: unknown field 'final_sparisty' of !GMPruningModifier; did you mean "
            "'final_sparsity'?"),
        ("    end_epoch", "    end_stp", TypeError, ":9: unknown field 'end_stp' of !GM"),
        ("    update_frequency: 0.5\n", "", TypeError,
            ":4: missing fields of !GMPruningModifier: update_frequency"),
        ("!GMPruning", "!GMPrunin", TagError,
            ":4: unknown modifier !GMPruninModifier; did you mean 'GMPruningModifier'"),
        ("!Epoch", "!Eopch", TagError, ":11: unknown modifier !Eopch"),
        ("start_epoch: 1.0", "start_epoch: -2", ValueError,
            ":8: start_epoch of GMPruningModifier must be at least -1.0, "
            "found -2.0"),
        ("end_epoch: 3.5", "end_epoch: -3", ValueError, ":11: end_epoch of"),
        ("eval(epochs)", "0.5", ValueError, ":9: end_epoch of GMPruning"),
        ("update_frequency: 0.5", "update_frequency: half", ValueError,
            ":10: update_frequency of GMPruningModifier must be a number of epochs, found 'half'"),
        ("[a.weight]", r"re:a\..*weight", ValueError, ":5: a list of names, __ALL__ or "
            r"__ALL_PRUNABLE__ is needed for params of GMPruningModifier, found "
            r"'re:a\..*weight'; write it ['re:a\..*weight']"),
        ("[a.weight]", "ALL_PRUNABLE", ValueError, ":5: a list of names, __ALL__ or "
            "__ALL_PRUNABLE__ is needed for params of GMPruningModifier, found "
            "'ALL_PRUNABLE'; did you mean '__ALL_PRUNABLE__'?"),
        ("start_epoch: 1.0", "start_epoch: 1.0\n    start_step: 3", ValueError,
            ":8: GMPruningModifier takes start_epoch or start_step, not both"),
        ("start_epoch: 1.0", "start_step: 1.5", ValueError, ":8: start_step"),
        ("eval(epochs)", "eval(epcohs)", Exception,
            ":9: unknown variable 'epcohs' in eval(epcohs); did you mean 'epochs'?"),
        ("eval(epochs)", "epochs * 0.5", ValueError,
            ":9: end_epoch of GMPruningModifier must be a number of epochs, found 'epochs * 0.5'; "
            "to use variables, write eval(epochs * 0.5)"),
        ("    params: [a", "  params: [a", yaml.YAMLError,
            ":5: not valid YAML: while parsing a block collection, did not find expected '-' "
            "indicator (is the line indented as those that it belongs to?)"),
        ("epochs: 10", "epochs: eval(epochs)", RuntimeError, ":2: circular variables"),
        ("eval(epochs)", "eval(epochs +)", RuntimeError, ":9: 'epochs +' is not arithmetic"),
        ("pruning_modifiers", "pruning", ValueError,
            ":4: modifiers must stand in a list under a key whose name contains 'modifiers', at "
            "the root or in a stage; found some under 'pruning'"),
        ("pruning_modifiers:\n", "a: {b: {c_modifiers: [!EpochRangeModifier {}]}}\nmodifiers:\n",
            ValueError, ":3: modifiers must stand in a list under a key whose name contains "
            "'modifiers', at the root or in a stage; found some under 'a.b.c_modifiers'"),
        ("  - !GM", "  -\t- !GM", yaml.YAMLError, ":4: not valid YAML: "),
        ("    params", "\tparams", yaml.YAMLError, ":5: not valid YAML: "),
        ("- !EpochRangeModifier {", "- EpochRangeModifier: {", ValueError,
            ":11: a modifier must begin with its tag, as '- !Name'; found "),
        (RANGE, "start_epoch: 0.0", TagError,
            ":11: the fields of !EpochRangeModifier must begin on a line of their own"),
        (RANGE, "once", TagError,
            ":11: !EpochRangeModifier is followed by 'once' instead of fields"),
        (RANGE, "[1]", TagError,
            ":11: !EpochRangeModifier needs fields"),
        ("end_epoch: 3.5", "end_epoch: !EpochRangeModifier {}", ValueError,
            ":11: a modifier cannot stand inside a modifier"),
        ("# a comment", "stage: {modifiers: [!EpochRangeModifier {start_epoch: 0, end_epoch: 1}]}",
            ValueError, ": groups of modifiers must stand either all at the root or all in"),
    ],
)  # fmt: skip
def test_place_and_text(
    old: str, new: str, kind: type[Exception], text: str, error_of: Any, tmp_path: Path
) -> None:
    assert RECIPE.count(old) == 1
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace(old, new))
    error = error_of(path)
    assert isinstance(error, kind)
    assert str(error).startswith(f"{path}{text}"), str(error)
    assert error.file == str(path)


def test_recipes_of_another_language(error_of: Any) -> None:
    error = error_of("stage:\n  obcq_modifiers:\n    SparseGPTModifier:\n      sparsity: 0.5\n")
    assert isinstance(error, ValueError) and error.line == 2
    assert "'obcq_modifiers' must be a list of modifiers, each '- !Name'" in str(error)
    assert "as in recipes of llm-compressor" in str(error)


def test_constructors_may_take_more_than_their_signature_tells(load: Any, error_of: Any) -> None:
    class PoppingModifier(BaseModifier):
        def __init__(self, **kwargs: Any) -> None:
            self.popped = kwargs.pop("popped", 0)
            super().__init__(**kwargs)

    ModifierYAML("toy")(PoppingModifier)
    recipe = "modifiers:\n  - !PoppingModifier\n    popped: 3\n"
    assert load(recipe).modifiers[0].popped == 3
    error = error_of(recipe.replace("popped", "poped"))
    assert isinstance(error, TypeError)
    assert str(error) == "<recipe>:3: unknown field 'poped' of !PoppingModifier"


def test_messages_are_short(error_of: Any) -> None:
    for old, new in (
        ("[a.weight]", "x" * 100_000),
        ("start_epoch: 1.0", f"start_epoch: {'x' * 100_000}"),
        ("cubic", "x" * 100_000),
        ("final_sparsity", "x" * 100_000),
        ("!GMPruningModifier", f"!{'x' * 1000}"),
    ):
        if old in RECIPE:
            assert len(str(error_of(RECIPE.replace(old, new)))) < 1200
    assert len(str(error_of("x" * 100_000 + ".yaml"))) < 1200


def test_attributes(error_of: Callable[..., RecipeError]) -> None:
    error = error_of(RECIPE.replace("final_sparsity", "final_sparisty"))
    assert (error.file, error.line, error.column) == (None, 7, 5)
    assert (error.key, error.found) == ("final_sparisty", "final_sparisty")
    assert error.allowed and {"final_sparsity", "start_step", "mask_type"} <= set(error.allowed)
    assert error.message.startswith("unknown field 'final_sparisty' of")
    assert str(error) == f"<recipe>:7: {error.message}"
    value = error_of(RECIPE.replace("start_epoch: 1.0", "start_epoch: -2"))
    assert (value.line, value.column, value.key, value.found) == (8, 5, "start_epoch", -2)
    tag = error_of(RECIPE.replace("!GMPruning", "!Pruning"))
    assert (tag.line, tag.column, tag.found) == (4, 5, "!PruningModifier")
    assert tag.allowed and "GMPruningModifier" in tag.allowed


def test_lines_of_front_matter_are_those_of_the_file(error_of: Any, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"\n---\n{RECIPE.replace('final_sparsity', 'final')}---\n# Words\n")
    assert error_of(path).line == 9


@pytest.mark.parametrize("text", ["\n", "# nothing\n", "a: 1\n", "modifiers: []\n", "modifiers:\n",
    "stage:\n  modifiers: []\n", "just words\nand more\n", "- 1\n- 2\n", "3\n\n"])  # fmt: skip
def test_recipes_without_modifiers(text: str, error_of: Any) -> None:
    error = error_of(text)
    assert isinstance(error, ValueError)
    assert "modifier" in str(error)


def test_the_word_is_quoted(error_of: Any) -> None:
    assert "'modifiers'" in str(error_of("a: 1\n"))
    assert "'modifiers'" in str(error_of("modifiers: []\n"))
    assert "'modifiers'" in str(error_of("things:\n  - !EpochRangeModifier {}\n"))


def test_metadata_are_no_stage(load: Any) -> None:
    recipe = load(f"__metadata__:\n  modifiers: 2\n{RECIPE}")
    assert len(recipe.modifiers) == 2
    assert recipe.metadata == {"__metadata__": {"modifiers": 2}}


def test_fields_of_old_recipes_are_ignored(load: Any) -> None:
    text = RECIPE.replace("    update_frequency", "    log_types: __ALL__\n    update_frequency")
    assert len(load(text).modifiers) == 2


def test_forms_that_load(load: Any) -> None:
    one = load("modifiers:\n  - !EpochRangeModifier {start_epoch: 0.5, end_epoch: 1.5}\n")
    two = load("!EpochRangeModifier\n    start_epoch: 0.5\n    end_epoch: 1.5\n")
    three = load("- !EpochRangeModifier  # from 0.5 on\n  start_epoch: 0.5\n  end_epoch: 1.5\n")
    four = load("modifiers: [!toy.EpochRangeModifier {start_epoch: 5e-1, end_epoch: 15E-1}]\n")
    texts = {str(recipe.modifiers[0]) for recipe in (one, two, three, four)}
    assert texts == {"!EpochRangeModifier\n    end_epoch: 1.5\n    start_epoch: 0.5"}
    assert three.metadata == {"__metadata__": None}


def test_groups_keep_the_order_of_the_text_and_stages_sort(load: Any) -> None:
    item = "{start_epoch: 0, end_epoch: "
    plain = load(
        f"b_modifiers: [!EpochRangeModifier {item}3}}]\n"
        f"a_modifiers: [!EpochRangeModifier {item}2}}]\n"
    )
    assert [modifier.end_epoch for modifier in plain.modifiers] == [3.0, 2.0]
    staged = (
        f"z: {{a_modifiers: [!EpochRangeModifier {item}3}}]}}\n"
        f"y: {{b_modifiers: [!EpochRangeModifier {item}4}}]}}\n"
    )
    assert list(load(staged).modifiers) == ["y", "z"]
    assert list(BaseModifier.load_framework_list(staged, "toy")) == ["y", "z"]


def test_single_modifiers(error_of: Any) -> None:
    made = BaseModifier.load_framework_obj(
        "!EpochRangeModifier {start_epoch: 0, end_epoch: 2}", "toy"
    )
    assert made.props(True) == {"start_epoch": 0.0, "end_epoch": 2.0}
    with pytest.raises(ValueError, match="a modifier must begin with its tag"):
        BaseModifier.load_framework_obj("a: 1", "toy")
    with pytest.raises(TagError, match="unknown modifier !EpochRange"):
        BaseModifier.load_framework_obj("!EpochRangeModifier {}", "no such framework")
    error = error_of("!EpochRangeModifier\nstart_epoch: 0\nend_epoch: -4\n")
    assert error.line == 3
