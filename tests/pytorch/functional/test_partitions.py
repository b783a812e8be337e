from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.pytorch.functional.partitions import (
    contiguous_partitions,
    cyclic_groups,
    random_groups,
    require_partitions,
)

SIZES = st.lists(st.integers(1, 50) | st.sampled_from([1, 100, 1000]), min_size=1, max_size=12)


@given(SIZES, st.data())
def test_contiguous_partitions_are_nearly_equal(sizes, data):
    count = data.draw(st.integers(1, len(sizes)))
    found = contiguous_partitions(sizes, count)
    assert len(found) == count and all(found)
    assert sum(found, ()) == tuple(range(len(sizes)))
    weights = [sum(sizes[place] for place in partition) for partition in found]
    assert max(weights) - min(weights) <= max(sizes)


def test_the_least_sum_of_squares_alone_would_not_be_enough():
    sizes = [9, 9, 20, 7, 9, 20, 20, 20, 20, 1, 9]  # it gives 18, 27, 29, 40 and 30
    found = contiguous_partitions(sizes, 5)
    weights = [sum(sizes[place] for place in partition) for partition in found]
    assert max(weights) - min(weights) <= 20


def test_a_few_by_hand():
    assert contiguous_partitions([4, 1, 1, 2], 2) == [(0,), (1, 2, 3)]
    assert contiguous_partitions([1] * 6, 3) == [(0, 1), (2, 3), (4, 5)]
    assert contiguous_partitions([10, 0, 1], 3) == [(0,), (1,), (2,)]
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"1 to 3 partitions, found {count}"):
            contiguous_partitions([1, 1, 1], count)


def test_cyclic_groups_go_round():
    partitions = [(0, 1), (2,), (3, 4)]
    groups = cyclic_groups(partitions, 7)
    assert groups == [partitions[step % 3] for step in range(7)]
    for first in range(5):  # every tensor, in any three steps in a row
        assert sorted(sum(groups[first : first + 3], ())) == [0, 1, 2, 3, 4]
    times = [sum(place in group for group in groups) for place in range(5)]
    assert set(times) == {2, 3}  # 7 / 3, rounded down and up


def test_random_groups_never_repeat_at_once():
    random.seed(5)
    state = random.getstate()
    groups = random_groups(tensors=11, count=3, steps=60, seed=1)
    assert random.getstate() == state
    assert all(len(group) == 3 and sorted(set(group)) == list(group) for group in groups)
    assert all(not set(a) & set(b) for a, b in itertools.pairwise(groups))
    assert set(sum(groups, ())) == set(range(11))
    assert groups == random_groups(11, 3, 60, seed=1)
    assert groups[:20] == random_groups(11, 3, 20, seed=1)  # as an earlier run has planned
    assert groups != random_groups(11, 3, 60, seed=2)
    assert groups[:2] == [(1, 2, 9), (0, 5, 6)]


@pytest.mark.parametrize("count", [1, 12])
def test_random_groups_need_something_to_draw_from(count):
    with pytest.raises(ValueError, match=f"2nd to 11th part may be drawn, found {count}"):
        random_groups(11, count, 3, 0)


def test_partitions_are_disjoint_and_cover_all():
    names = ["a", "b", "c"]
    require_partitions([(0, 2), (1,)], names)
    with pytest.raises(ValueError, match="b is in partitions 0 and 1"):
        require_partitions([(0, 1), (1, 2)], names)
    with pytest.raises(ValueError, match="2 of 3 tensors are in no partition: b, c"):
        require_partitions([(0,)], names)
    with pytest.raises(ValueError, match="partition 1 has no tensor"):
        require_partitions([(0, 1, 2), ()], names)
