from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

PLAIN = """
modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: 3.0
  - !ConstantPruningModifier
    params: __ALL__
"""
OTHER = "modifiers:\n  - !EpochRangeModifier\n    start_epoch: 0.0\n    end_epoch: 2.5\n"


def staged(*names: str) -> str:
    blocks = [
        f"{name}:\n  {name}_modifiers:\n    - !EpochRangeModifier\n"
        f"      start_epoch: {2.0 * i}\n      end_epoch: {2.0 * i + 2}\n"
        for i, name in enumerate(names)
    ]
    return "\n".join(blocks)


@pytest.mark.parametrize(
    ("base", "additional", "expected"),
    [
        (PLAIN, OTHER, ["stage_0", "stage_1"]),
        (staged("a", "b"), OTHER, ["a", "b", "stage_3"]),
        (staged("a", "b"), staged("c"), ["a", "b", "c"]),
        (PLAIN, staged("c", "d"), ["pre_c", "c", "d"]),
    ],
)
def test_names_of_stages(
    base: str, additional: str, expected: list[str], manager_class: Any
) -> None:
    composed = manager_class.compose_staged(base, additional)
    assert list(composed.modifiers) == expected
    assert list(composed.metadata) == expected


@pytest.mark.parametrize(
    ("base", "additional"),
    [(staged("a", "b"), staged("b")), (staged("a", "stage_3"), OTHER)],
)
def test_names_that_occur_twice(base: str, additional: str, manager_class: Any) -> None:
    with pytest.raises(ValueError, match="both recipes have stages named"):
        manager_class.compose_staged(base, additional)


def test_epochs_follow_each_other(manager_class: Any) -> None:
    composed = manager_class.compose_staged(PLAIN, OTHER)
    first, second = composed.modifiers["stage_0"], composed.modifiers["stage_1"]
    assert [(m.start_epoch, m.end_epoch) for m in first] == [(-1.0, 3.0), (0.0, 3.0)]
    assert first[0]._init_end == 3.0
    assert [(m.start_epoch, m.end_epoch) for m in second] == [(3.0, 5.5)]
    assert composed.max_epochs == 6


def test_original_epochs_can_be_kept(manager_class: Any) -> None:
    composed = manager_class.compose_staged(PLAIN, OTHER, keep_original_epochs=True)
    assert composed.modifiers["stage_0"][-1].end_epoch == -1.0
    assert composed.modifiers["stage_1"][0].end_epoch == 2.5


def test_managers_are_read_anew(manager_class: Any) -> None:
    base, additional = manager_class.from_yaml(PLAIN), manager_class.from_yaml(OTHER)
    for modifier in base.iter_modifiers():
        modifier._initialized = True
    text = str(base), str(additional)
    composed = manager_class.compose_staged(base, additional)
    assert (str(base), str(additional)) == text
    assert not any(modifier.initialized for modifier in composed.iter_modifiers())
    assert composed == manager_class.compose_staged(PLAIN, OTHER)


def test_metadata_move_under_their_stages(manager_class: Any) -> None:
    base = f"__metadata__:\n  level: 1\n{PLAIN}"
    composed = manager_class.compose_staged(base, OTHER)
    assert composed.metadata == {"stage_0": {"level": 1}, "stage_1": None}
    more = manager_class.compose_staged(composed, OTHER)
    assert more.metadata == {"stage_0": {"level": 1}, "stage_1": "None", "stage_3": None}


def test_the_result_is_saved_and_can_be_read(manager_class: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "composed.yaml"
    composed = manager_class.compose_staged(PLAIN, OTHER, save_path=path)
    assert path.read_text() == str(composed)
    assert "end_epoch: 3\n" in str(composed)  # a whole number where the base's endless ones now end
    reread = str(manager_class.from_yaml(path)).replace("None", "")
    assert reread == str(composed).replace("None", "").replace("end_epoch: 3\n", "end_epoch: 3.0\n")


def test_schedules_in_steps(manager_class: Any) -> None:
    steps = "modifiers:\n  - !EpochRangeModifier\n    start_step: 0\n    end_step: 30\n"
    with pytest.raises(RuntimeError, match="given in steps"):
        manager_class.compose_staged(steps, OTHER)
    with pytest.raises(ValueError, match="cannot be shifted"):
        manager_class.compose_staged(PLAIN, steps)
    kept = manager_class.compose_staged(PLAIN, steps, keep_original_epochs=True)
    assert "end_step: 30" in str(kept)
