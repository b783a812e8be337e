"""Exploring: small ones first, nothing larger after a success."""

from __future__ import annotations

import threading

import pytest

from sparseml.compose.exploring import NotReachableError, Objective, explore
from sparseml.compose.reporting import pareto
from sparseml.run.errors import RunError


class Simulated:
    """Attempts whose results are known, and that end in a given order.

    :param ends: names in the order in which they end, if they are not cancelled before
    """

    def __init__(self, scores, ends):
        self.scores, self.ends = scores, list(ends)
        self.started, self.cancelled = [], set()
        self.changed = threading.Condition()

    def start(self, name):
        with self.changed:
            self.started.append(name)
            self.changed.notify_all()
        return _Attempt(self, name)

    def may_end(self, name):
        return name in self.cancelled or self.ends[:1] == [name]


class _Attempt:
    def __init__(self, world, name):
        self.world, self.name = world, name

    def wait(self):
        world = self.world
        with world.changed:
            world.changed.wait_for(lambda: world.may_end(self.name), timeout=10)
            world.ends = [one for one in world.ends if one != self.name]
            world.changed.notify_all()
            return None if self.name in world.cancelled else {"bleu": world.scores[self.name]}

    def cancel(self):
        with self.world.changed:
            self.world.cancelled.add(self.name)
            self.world.changed.notify_all()


SCORES = {"a": 10.0, "b": 31.0, "c": 34.0, "d": 35.0, "e": 36.0}
GOAL = Objective.parse("bleu>=33.0")


@pytest.mark.parametrize(
    ("scores", "parallel", "ends", "wins", "started"),
    [
        ({}, 1, "abcde", "c", "abc"),
        ({"a": 40.0}, 1, "abcde", "a", "a"),
        ({}, 2, "abcde", "c", "abcd"),
        ({}, 3, "cabde", "c", "abc"),  # a larger one ends first: smaller ones are waited for
        ({"a": 33.0}, 3, "cba", "a", "abc"),
        ({"b": 33.0}, 2, "abcde", "b", "abc"),
        ({}, 9, "edcba", "c", "abcde"),
        ({"c": 1.0, "d": 1.0}, 2, "abcde", "e", "abcde"),
    ],
)
def test_property_18_the_smallest_success_and_nothing_above(scores, parallel, ends, wins, started):
    world = Simulated({**SCORES, **scores}, ends)
    assert explore("abcde", world.start, GOAL, parallel, lambda _: None) == wins
    assert "".join(world.started) == started
    assert all(name > wins for name in world.cancelled)


def test_property_18_no_success():
    world = Simulated(dict.fromkeys("abc", 1.0), "abc")
    with pytest.raises(NotReachableError, match="no configuration meets bleu>=33"):
        explore("abc", world.start, GOAL, 2, lambda _: None)
    assert world.started == ["a", "b", "c"]


def test_what_fails_ends_it_all():
    class Failing(_Attempt):
        def wait(self):
            raise RunError("b has failed")

    world = Simulated(SCORES, "")
    kinds = {"b": Failing}
    with pytest.raises(RunError, match="b has failed"):
        explore("abc", lambda n: kinds.get(n, _Attempt)(world, n), GOAL, 3, lambda _: None)
    assert world.cancelled == {"a", "c"}


@pytest.mark.parametrize("text", ["bleu", "bleu=33", ">=3", "bleu>=high", "bleu>=33 or so"])
def test_objectives_that_cannot_be_read(text):
    with pytest.raises(RunError, match="--objective must read like"):
        Objective.parse(text)


def test_objectives():
    assert Objective.parse("loss < 0.5").met({"loss": 0.4})
    assert not Objective.parse("loss<=-1e-1").met({"loss": 0.0})
    with pytest.raises(RunError, match="bleu was not measured, only loss"):
        GOAL.met({"loss": 0.4})


def test_the_pareto_front():
    rows = [
        {"name": n, "kept_params": size, "metrics": {"accuracy": good}}
        for n, size, good in [("a", 1, 0.5), ("b", 2, 0.4), ("c", 3, 0.9), ("d", 3, 0.8)]
    ]
    assert pareto(rows) == ["a", "c"]
    for row in rows:
        row["metrics"] = {"loss": row["metrics"]["accuracy"]}
    assert pareto(rows) == ["a", "b"]
