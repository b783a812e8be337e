from __future__ import annotations

from typing import Any

import pytest
import torch

from sparseml.pytorch.units import Member, UnitGroup, identity, offset, repeats, tiles


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (identity(3), [0, 1, 2]),
        (repeats(3, 2), [0, 0, 1, 1, 2, 2]),
        (tiles(3, 2), [0, 1, 2, 0, 1, 2]),
        (tiles(repeats(2, 2), 3), [0, 0, 1, 1] * 3),
        (repeats(tiles(2, 2), 2), [0, 0, 1, 1] * 2),
        (offset(2, 1, 4), [-1, 0, 1, -1]),
        (offset(repeats(2, 2), 0, 5), [0, 0, 1, 1, -1]),
    ],
)
def test_index_maps(index: torch.Tensor, expected: list[int]) -> None:
    assert index.tolist() == expected
    assert index.dtype == torch.int64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: identity(0), "size must be at least 1, found 0"),
        (lambda: repeats(2, 0), "times must be at least 1, found 0"),
        (lambda: tiles(2, -1), "times must be at least 1, found -1"),
        (lambda: offset(3, 2, 4), "3 slices do not fit into 4 from number 2 on"),
        (lambda: offset(3, -1, 4), "do not fit"),
    ],
)
def test_wrong_numbers(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_group_is_a_value() -> None:
    member = Member("module.fc._orig_mod.weight", 0, [0, 0, 1])
    assert (member.param, member.index.dtype, member.follows) == ("fc.weight", torch.int64, False)
    group = UnitGroup("neurons", 2, [member, Member("out.weight", 1, identity(2), follows=True)])
    assert isinstance(group.members, tuple)
    assert (group.masked, group.following) == (["fc.weight"], ["out.weight"])
    assert {group: 1}[group] == 1
    with pytest.raises(AttributeError):
        group.size = 3  # type: ignore[misc]


@pytest.mark.parametrize("keep", [[1], (1,), torch.tensor([1]), torch.tensor([False, True, False])])
def test_what_is_kept(keep: Any) -> None:
    group = UnitGroup("units", 3, [Member("weight", 0, identity(3))])
    assert group.as_mask(keep).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("size", "member", "message"),
    [
        (0, ("w", 0, identity(3)), "'units': found 0 units in 1 members"),
        (3, None, "'units': found 3 units in 0 members, allowed is at least one of each"),
        (2, ("w", 0, identity(3)), r"'units', w along dimension 0: found an index map from 0 to 2, "
         r"allowed is -1 \(no unit\) to 1"),
        (3, ("w", 0, [-2, 0, 1, 2]), "found an index map from -2 to 2"),
        (3, ("w", -1, identity(3)), "w along dimension -1: found a negative dimension"),
        (3, ("w", 0, [0.0, 1.0, 2.0]), r"found an index map of \[0.0, 1.0, 2.0\], allowed is one "
         r"integer for each slice"),
        (3, ("w", 0, [[0, 1, 2]]), r"found an index map of shape \(1, 3\) of int64"),
        (3, ("w", 0, []), r"found an index map of shape \(0,\)"),
        (3, ("w", 0, [True, False]), r"found an index map of shape \(2,\) of bool"),
        (4, ("w", 0, [0, 2, -1]), "2 of 4 units have no slice in any of its members, the first is "
         "unit 1"),
    ],
)  # fmt: skip
def test_maps_that_are_none(size: int, member: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UnitGroup("units", size, [] if member is None else [Member(*member)])


def test_a_gate_has_a_factor_per_unit() -> None:
    members = [Member("weight", 0, identity(3))]
    assert UnitGroup("units", 3, members, gate=torch.ones(3)).gate is not None
    with pytest.raises(ValueError, match=r"'units': found a gate of shape \(2,\), allowed is \(3,"):
        UnitGroup("units", 3, members, gate=torch.ones(2))
