"""The smallest model that meets an objective: small ones first, several at a time."""

from __future__ import annotations

import operator
import queue
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparseml.pytorch.sparsification.composing.blocks import Plan
from sparseml.run.errors import RunError

Metrics = Mapping[str, float]
ORDERS = {"params": "kept_params", "flops": "flops"}
_OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


class NotReachableError(RunError):
    """An objective that no configuration meets."""


class Attempt(Protocol):
    """A configuration that is being fine-tuned."""

    def wait(self) -> Metrics | None:
        """Return what was found; None if it was cancelled."""

    def cancel(self) -> None:
        """End it early."""


@dataclass(frozen=True)
class Objective:
    """What a model must reach, such as ``bleu>=33.0``."""

    metric: str
    comparison: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Read an objective; a RunError for another form."""
        found = re.fullmatch(r"\s*([\w.]+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*", text)
        try:
            return cls(found[1], found[2], float(found[3]))  # type: ignore[index]
        except (TypeError, ValueError):
            raise RunError(f"--objective must read like 'bleu>=33.0', found {text!r}") from None

    def met(self, found: Metrics) -> bool:
        """Return whether it is met; a RunError if that metric was not measured."""
        if self.metric not in found:
            raise RunError(
                f"--objective: {self.metric} was not measured, only {', '.join(sorted(found))}"
            )
        return bool(_OPERATORS[self.comparison](found[self.metric], self.bound))


def by_size(plan: Plan, order: str) -> list[str]:
    """Return the names of configurations, the smallest first; of equal ones by name.

    :param order: ``params`` or ``flops``
    """
    key = ORDERS[order]
    return [
        str(one["name"]) for one in sorted(plan.configurations, key=lambda c: (c[key], c["name"]))
    ]


def explore(
    names: Sequence[str],
    start: Callable[[str], Attempt],
    objective: Objective,
    parallel: int = 1,
    say: Callable[[str], None] = print,
) -> str:
    """Return the smallest configuration that meets an objective.

    They are started in order, some at a time. Once one succeeds none is started that is larger, and
    those under way that are larger are cancelled; smaller ones end, and the smallest wins.

    :param names: in order of size
    :raises NotReachableError: if none does
    """
    done: queue.Queue[tuple[int, Metrics | BaseException | None]] = queue.Queue()
    running: dict[int, Attempt] = {}
    best, following = len(names), 0

    def watch(rank: int, attempt: Attempt) -> None:
        try:
            done.put((rank, attempt.wait()))
        except BaseException as error:  # told to who waits
            done.put((rank, error))

    while True:
        while following < best and len(running) < parallel:
            say(f"{names[following]}: started")
            running[following] = attempt = start(names[following])
            threading.Thread(target=watch, args=(following, attempt), daemon=True).start()
            following += 1
        if not running:
            break
        rank, found = done.get()
        del running[rank]
        if isinstance(found, BaseException):
            for attempt in running.values():
                attempt.cancel()
            raise found
        if found is None:
            say(f"{names[rank]}: cancelled")
            continue
        met = objective.met(found)
        told = f"{objective.metric} {found[objective.metric]:.4f}"
        say(f"{names[rank]}: {told}, {'meets the objective' if met else 'does not meet it'}")
        if met and rank < best:
            best = rank
            for other, attempt in running.items():
                if other > best:
                    attempt.cancel()
    if best == len(names):
        raise NotReachableError(
            f"no configuration meets {objective.metric}{objective.comparison}{objective.bound:g}"
        )
    return names[best]
