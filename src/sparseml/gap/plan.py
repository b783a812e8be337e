"""The runs of a chain, planned before any of them starts: recipe, seed, rate and parent of each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import EpochRangeModifier, GaPPruningModifier
from sparseml.run.errors import RunError

FINAL = "final"
_OF_ALL_STEPS = ("end_epoch", "num_steps", "start_epoch", "update_frequency", "partition_type")

RATES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda part, factor: 1.0,
    "linear": lambda part, factor: 1.0 - part,
    "cosine": lambda part, factor: (1.0 + math.cos(math.pi * part)) / 2.0,
}
"""How the learning rate goes on from step to step, by the part of all steps that is over."""


@dataclass(frozen=True)
class Description:
    """What a chain shall do.

    :param steps: how many there are; in parallel, rounds of one step for every partition
    :param epochs: of each step
    :param kind: ``cyclic``, ``random`` or ``parallel``
    :param fields: of the ``GaPPruningModifier``, but for its schedule
    :param others: text of the modifiers that every step has besides, "" for none
    :param finetune: epochs after the last step, in which all is sparse; 0 for none
    :param seed: of the first step; each further one adds 1
    :param rate: the learning rate of the first step, None to leave it to the child
    :param across: how the rate goes on, a key of :data:`RATES`, or ``step``
    :param factor: what ``step`` multiplies the rate by after each step
    """

    steps: int
    epochs: int
    kind: str
    fields: dict[str, Any]
    others: str = ""
    finetune: int = 0
    seed: int = 0
    rate: float | None = None
    across: str = "constant"
    factor: float = 1.0

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        given = self.fields.get("partitions")
        return len(given) if given else int(self.fields.get("num_partitions", 3))

    def rate_of(self, step: int) -> float | None:
        """Return the learning rate of a step; that of the fine-tuning is the first one's."""
        if self.rate is None or step >= self.steps:
            return self.rate
        if self.across == "step":
            return _printable(self.rate * self.factor**step)
        return _printable(self.rate * RATES[self.across](step / self.steps, self.factor))


@dataclass(frozen=True)
class Link:
    """One run of a chain.

    :param name: its folder below the workspace
    :param group: runs of one group may go on at the same time
    :param recipe: the text of its recipe
    :param rate: its learning rate, None to leave it to the child
    :param dense: whether something in it stays dense
    """

    name: str
    group: int
    recipe: str
    seed: int
    epochs: int
    rate: float | None
    dense: bool = True

    @property
    def recipe_hash(self) -> str:
        """SHA-256 of the recipe, in hexadecimal digits."""
        return hashlib.sha256(self.recipe.encode()).hexdigest()


def describe(
    recipe: str, variables: str | None, kind: str | None = None, **given: Any
) -> Description:
    """Return the description that a recipe with one ``GaPPruningModifier`` gives.

    :param recipe: its file, or its text
    :param kind: ``parallel``, or what the recipe has as ``partition_type``
    :param given: other parts of the description; None where the recipe says it
    :raises RunError: for a recipe without such a modifier, and one that steps cannot repeat
    """
    manager = ScheduledModifierManager.from_yaml(recipe, recipe_variables=variables)
    found = [one for one in manager.iter_modifiers() if isinstance(one, GaPPruningModifier)]
    if len(found) != 1:
        raise RunError(f"--recipe must have one GaPPruningModifier, found {len(found)}")
    modifier = found[0]
    modifier.check_steps_resolved()
    values = modifier.props(only_serializable=True)
    fields = {key: value for key, value in values.items() if key not in _OF_ALL_STEPS}
    given = {key: value for key, value in given.items() if value is not None}
    epochs = given.setdefault("epochs", modifier.update_frequency)
    if epochs != int(epochs) or epochs < 1:
        raise RunError(f"a step has a whole number of epochs, found {epochs:g}: --epochs-per-step")
    given.setdefault("steps", modifier.num_steps)
    if given["steps"] < 1:
        raise RunError(f"--steps must be at least 1, found {given['steps']}")
    others: list[Any] = []
    for one in manager.iter_modifiers():
        if one is modifier or isinstance(one, EpochRangeModifier):
            continue
        if max(getattr(one, "start_epoch", 0.0), getattr(one, "end_epoch", 0.0)) > epochs:
            raise RunError(
                f"--recipe: {type(one).__name__} goes on beyond epoch {epochs:g}, where every step "
                "ends; what is beside the GaPPruningModifier is repeated in each step"
            )
        others.append(one)
    text = str(ScheduledModifierManager(others)) if others else ""
    kind = kind or modifier.partition_type
    if kind == "fixed":
        raise RunError("--recipe: partition_type fixed has a single step; say --partition-type")
    return Description(**{**given, "epochs": int(epochs)}, kind=kind, fields=fields, others=text)


def links(chain: Description, own_recipes: Path | None = None) -> list[Link]:
    """Return the runs of a chain in order.

    :param own_recipes: a folder whose ``step_{i}.yaml`` are taken in place of what would be made
    """
    planned = list(_parallel(chain) if chain.kind == "parallel" else _one_by_one(chain))
    if chain.finetune:
        step = chain.steps
        # workers leave a whole model that is dense, so that nothing is carried on
        before = {} if chain.kind == "parallel" else {"first_step": step}
        recipe = _recipe(chain, chain.finetune, num_steps=0, **before)
        rate = chain.rate_of(step)
        seed = chain.seed + step
        planned.append(Link(FINAL, step, recipe, seed, chain.finetune, rate, dense=False))
    return [_with_own(link, own_recipes) for link in planned]


def _one_by_one(chain: Description) -> Iterator[Link]:
    for step in range(chain.steps):
        fields = {"partition_type": chain.kind, "first_step": step, "final_prune": False}
        recipe = _recipe(chain, chain.epochs, num_steps=1, **fields)
        yield _link(chain, f"step_{step}", step, recipe)


def _parallel(chain: Description) -> Iterator[Link]:
    """A worker for every partition in each round; all of a round start from the same weights."""
    for step in range(chain.steps):
        first = "random" if step == 0 else "magnitude"
        for worker in range(chain.partitions):
            fields = {"partition_type": "fixed", "grown_partition": worker, "final_prune": False}
            start = {"initial_mask": first, "prune_grown_at_start": True}
            recipe = _recipe(chain, chain.epochs, num_steps=1, **fields, **start)
            yield _link(chain, f"step_{step}/worker_{worker}", step, recipe)


def _link(chain: Description, name: str, step: int, recipe: str) -> Link:
    return Link(name, step, recipe, chain.seed + step, chain.epochs, chain.rate_of(step))


def _recipe(chain: Description, epochs: int, **fields: Any) -> str:
    modifiers: Sequence[Any] = []
    if chain.others:
        modifiers = list(ScheduledModifierManager.from_yaml(chain.others).iter_modifiers())
    every = {**chain.fields, **fields, "start_epoch": 0.0, "update_frequency": float(epochs)}
    lasts = EpochRangeModifier(start_epoch=0.0, end_epoch=float(epochs))
    return str(ScheduledModifierManager([lasts, *modifiers, GaPPruningModifier(**every)]))


def _with_own(link: Link, folder: Path | None) -> Link:
    file = None if folder is None else folder / f"{link.name}.yaml"
    if file is None or not file.exists():
        return link
    text = str(ScheduledModifierManager.from_yaml(str(file)))  # checked before anything starts
    return Link(link.name, link.group, text, link.seed, link.epochs, link.rate, link.dense)


def _printable(rate: float) -> float:
    """Return a rate free of what rounding adds, as it goes into commands."""
    return float(f"{rate:.12g}")
