from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparseml.optim import BaseManager, BaseModifier
from sparseml.sparsification import (
    ConstantPruningModifier,
    EpochRangeModifier,
    GMPruningModifier,
    SetLearningRateModifier,
)


def pruner(start: float = 1.0, end: float = 4.0) -> GMPruningModifier:
    return GMPruningModifier(0.05, 0.8, start, end, 0.5, ["re:.*weight"])


def names(modifiers: list[BaseModifier]) -> list[str]:
    return [type(modifier).__name__ for modifier in modifiers]


def test_modifiers_are_sorted_whatever_their_order() -> None:
    modifiers = [
        SetLearningRateModifier(0.1),
        EpochRangeModifier(0.0, 5.0),
        EpochRangeModifier(0.0, 2.0),
        ConstantPruningModifier("__ALL__"),
        pruner(0.0, 5.0),
    ]
    expected = [modifiers[2], modifiers[1], modifiers[4], modifiers[3], modifiers[0]]
    assert BaseManager(modifiers).modifiers == expected
    assert BaseManager(modifiers[::-1]).modifiers == expected


def test_stages_are_sorted_by_where_they_lie() -> None:
    stages = {
        "late": [EpochRangeModifier(5.0, 9.0)],
        # its endless modifier does not move it to the end
        "early": [EpochRangeModifier(0.0, 5.0), ConstantPruningModifier("__ALL__")],
    }
    manager = BaseManager(stages)
    assert isinstance(manager.modifiers, OrderedDict)
    assert list(manager.modifiers) == ["early", "late"]
    assert manager.num_stages() == 2
    assert names(list(manager.iter_modifiers())) == [
        "EpochRangeModifier", "ConstantPruningModifier", "EpochRangeModifier",
    ]  # fmt: skip


@pytest.mark.parametrize("modifiers", [None, 3, "modifiers", (1,)])
def test_other_containers_are_refused(modifiers: Any) -> None:
    with pytest.raises(ValueError, match="modifiers must be a list, or a dict"):
        BaseManager(modifiers)


def test_metadata() -> None:
    manager = BaseManager([pruner()], {})
    assert manager.metadata is None
    manager.metadata = {"__metadata__": {"a": 1}}
    assert manager.metadata == {"__metadata__": {"a": 1}}
    with pytest.raises(TypeError):
        BaseManager([pruner()], {"__metadata__": {"a": object()}})


PLAIN = """\
version: 1.1.0

modifiers:
    - !EpochRangeModifier
        end_epoch: 3.0
        start_epoch: 0.0

    - !GMPruningModifier
        end_epoch: 4.0
        final_sparsity: 0.8
        init_sparsity: 0.05
        inter_func: cubic
        leave_enabled: True
        mask_type: unstructured
        params: ['re:.*weight']
        start_epoch: 1.0
        update_frequency: 0.5
"""

WITH_METADATA = """\
version: 1.1.0

__metadata__:
  epochs: 3
  framework_metadata:
    python_version: 3.11.7
    extra: None
  name: tiny

modifiers:
    - !EpochRangeModifier
        end_epoch: 3.0
        start_epoch: 0.0
"""
METADATA = {
    "epochs": 3,
    "framework_metadata": {"python_version": "3.11.7", "extra": None},
    "name": "tiny",
}

STAGED = """\
version: 1.1.0

first:
  __metadata__:
    a: 1

  first_modifiers:
      - !EpochRangeModifier
          end_epoch: 2.0
          start_epoch: 0.0
  
      - !EpochRangeModifier
          end_epoch: 3.0
          start_epoch: 0.0
  

second:
  __metadata__: None

  second_modifiers:
      - !EpochRangeModifier
          end_epoch: 6.0
          start_epoch: 3.0
  
"""  # noqa: W293


def staged() -> dict[str, list[BaseModifier]]:
    return {
        "second": [EpochRangeModifier(3.0, 6.0)],
        "first": [EpochRangeModifier(0.0, 3.0), EpochRangeModifier(0.0, 2.0)],
    }


def test_plain_text() -> None:
    manager = BaseManager([pruner(), EpochRangeModifier(0.0, 3.0)])
    assert str(manager) == PLAIN
    assert manager.to_string_lines()[-1] == ""
    assert manager.modifiers_to_string_lines(manager.modifiers)[0] == "modifiers:"
    assert manager.modifiers_list_to_string_lines(manager.modifiers)[0].startswith("    - !Epoch")


def test_text_with_metadata() -> None:
    manager = BaseManager([EpochRangeModifier(0.0, 3.0)], {"__metadata__": METADATA})
    assert str(manager) == WITH_METADATA
    assert "__metadata__" not in "\n".join(manager.to_string_lines(include_metadata=False))


def test_empty_metadata_still_show_their_key() -> None:
    manager = BaseManager([EpochRangeModifier(0.0, 3.0)], {"__metadata__": None})
    assert str(manager).startswith("version: 1.1.0\n\n__metadata__:\n\nmodifiers:\n")


def test_staged_text() -> None:
    manager = BaseManager(staged(), {"first": {"a": 1}, "second": None})
    assert str(manager) == STAGED
    without = str(BaseManager(staged()))
    assert without.startswith("version: 1.1.0\n\nfirst:\n  first_modifiers:\n      - !Epoch")


def test_reading_back_gives_the_same_text(manager_class: Any) -> None:
    for text in (PLAIN, WITH_METADATA, STAGED):
        again = manager_class.from_yaml(str(manager_class.from_yaml(text)))
        assert again == manager_class.from_yaml(text)
    assert str(manager_class.from_yaml(PLAIN)) == PLAIN.replace(
        "modifiers:\n", "__metadata__:\n\nmodifiers:\n"
    )


def test_equality_is_that_of_the_text() -> None:
    one, two = BaseManager([pruner()]), BaseManager([pruner()])
    assert one == two
    assert one != BaseManager([pruner(end=5.0)])
    with pytest.raises(TypeError):
        hash(one)


def test_save(tmp_path: Path) -> None:
    manager = BaseManager([EpochRangeModifier(0.0, 3.0)], {"__metadata__": METADATA})
    path = tmp_path / "new" / "folder" / "recipe.yaml"
    manager.save(path)
    assert path.read_text() == WITH_METADATA
    manager.save(str(path), include_metadata=False)
    assert path.read_text() == WITH_METADATA.replace(
        WITH_METADATA[WITH_METADATA.index("__meta") : WITH_METADATA.index("modifiers:")], ""
    )


def test_a_neutral_manager_reads_nothing() -> None:
    with pytest.raises(NotImplementedError, match="BaseManager belongs to no framework"):
        BaseManager.from_yaml(PLAIN)


def test_modifiers_of_a_temporary_manager_survive(manager_class: Any) -> None:
    assert len(manager_class.from_yaml(PLAIN).modifiers) == 2


def test_steps_are_resolved_and_sorted() -> None:
    by_steps = EpochRangeModifier(start_step=0, end_step=300)
    manager = BaseManager([by_steps, EpochRangeModifier(0.0, 10.0)])
    assert manager.modifiers[-1] is by_steps
    with pytest.raises(RuntimeError, match="given in steps"):
        _ = manager.max_epochs
    manager.resolve_steps(100)
    assert manager.modifiers[0] is by_steps
    assert manager.max_epochs == 10


def test_structured_modifiers_alone(
    tmp_path: Path, manager_class: Any, load: Callable[..., Any]
) -> None:
    from sparseml.optim import ModifierYAML
    from sparseml.sparsification import SparsificationTypes

    @ModifierYAML("toy")
    class Shrinking(GMPruningModifier):
        @GMPruningModifier.sparsification_types.getter
        def sparsification_types(self) -> list[SparsificationTypes]:
            return [SparsificationTypes.pruning, SparsificationTypes.structured]

    shrinking = Shrinking(0.05, 0.8, 1.0, 4.0, 0.5, "__ALL__")
    manager_class([pruner(), shrinking]).finalize_and_save_structured_modifiers(
        tmp_path / "structure.yaml"
    )
    (only,) = load(tmp_path / "structure.yaml").modifiers["structured_initialize_stage"]
    assert type(only) is Shrinking
    assert (only.start_epoch, only.end_epoch) == (-1.0, -1.0)
