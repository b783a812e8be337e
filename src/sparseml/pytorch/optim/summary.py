"""Where a run stands, for people to read: how far the schedule has come, and what is pruned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.nn import Module

from sparseml.optim.manager import span_of
from sparseml.optim.schedule import ONE_SHOT
from sparseml.pytorch.optim.step_driver import Position
from sparseml.pytorch.sparsification.planning import Prunes, asked_sparsities
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import is_sharded, local_part
from sparseml.pytorch.utils.tensors.stats import tensor_list_sparsity

_SHOWN = 6  # names of parameters in a line
_NEAR = 1e-6  # sparsities that count as equal


@dataclass(frozen=True)
class PruningSummary:
    """What a pruning modifier has done so far. Sparsities are fractions of all of its parameters.

    :param name: the name of its class
    :param params: the parameters that it covers; empty if it was not told yet of a model
    :param asked: the sparsity that it asked for at its last update; None before, and if it asks
        for none
    :param now: the sparsity that the parameters have
    :param goal: the sparsity that it asks for at its end
    :param span: where it starts and ends, in words; empty for from the start and without an end
    :param steps_done: optimizer steps taken of those that it is there for
    :param steps_needed: optimizer steps from its start to its end; None if it has no end, or how
        many make an epoch is not known yet
    :param empty: the parameters of which nothing is left
    :param broken: the parameters with values that are not finite
    :param aim: what it asks for in the place of a sparsity, in words, and what was reached
    """

    name: str
    params: tuple[str, ...]
    asked: float | None
    now: float | None
    goal: float | None
    span: str
    steps_done: int
    steps_needed: int | None
    empty: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    aim: str = ""

    @property
    def wrong(self) -> list[str]:
        """What nobody wants of pruning, a sentence each."""
        told = [("nothing is left of", self.empty), ("not all numbers are finite in", self.broken)]
        return [f"{self.name}: {what} {_listed(names)}" for what, names in told if names]

    @property
    def complete(self) -> bool:
        """Whether the end has been reached, or there is none."""
        return self.steps_needed is None or self.steps_done >= self.steps_needed

    def __str__(self) -> str:
        parts = [f"{what} {_percent(value)}" for what, value in self._sparsities()]
        parts += [self.aim] if self.aim else []
        done = f"step {self.steps_done}"
        if self.steps_needed is not None:
            done += f" of {self.steps_needed}"
        when = ", ".join([self.span, done] if self.span else [done])
        line = f"{self.name}, {when}: {', '.join(parts) or 'not started'}"
        if not self.params:
            return line
        plural = "s" if len(self.params) > 1 else ""
        return f"{line}\n  {len(self.params)} parameter{plural}: {_listed(self.params)}"

    def _sparsities(self) -> list[tuple[str, float]]:
        known = [("asked for", self.asked), ("now", self.now), ("at the end", self.goal)]
        return [(what, value) for what, value in known if value is not None]


@dataclass(frozen=True)
class RunSummary:
    """Where a run stands; printed, a line for the run and some for each pruning modifier.

    :param position: optimizer steps taken, and the epoch; None before the first step
    :param epochs: where the last modifier starts or ends; -1 if none says
    :param steps_needed: optimizer steps until then; None if how many make an epoch is not known
    """

    position: Position | None
    epochs: float
    steps_needed: int | None
    pruning: tuple[PruningSummary, ...]

    @property
    def sparse(self) -> bool:
        """Whether all modifiers have asked for what they ask for in the end."""
        return all(
            one.goal is None or (one.asked is not None and one.asked >= one.goal - _NEAR)
            for one in self.pruning
        )

    @property
    def complete(self) -> bool:
        """Whether the recipe has run to its end."""
        steps = 0 if self.position is None else self.position.steps
        return self.epochs < 0 or (self.steps_needed is not None and steps >= self.steps_needed)

    def __str__(self) -> str:
        wrong = [f"  {text}" for one in self.pruning for text in one.wrong]
        lines = [self.progress, *map(str, self.pruning), *wrong]
        if self.position is not None and not self.complete:
            lines.insert(1, "the recipe has not run to its end")
        return "\n".join(lines)

    @property
    def shortfall(self) -> str:
        """What is wrong with a run that ends here; empty if nothing is."""
        if self.complete:
            return ""
        if self.position is None:
            return (
                "no optimizer step was taken, so that the recipe has done nothing: step the "
                "optimizer that manager.modify returned, in place of your own"
            )
        late = [
            f"; {one.name}: sparsity {one.now:.2g} of {one.goal:.2g}"
            for one in self.pruning
            if not one.complete and one.now is not None and one.goal is not None
        ]
        return (
            f"the recipe has not run to its end: stopped at {self.progress}{''.join(late)}. If it "
            "should have, see that steps_per_epoch is the number of optimizer steps in one epoch"
        )

    @property
    def progress(self) -> str:
        """How far the run has come, in steps and in epochs."""
        if self.position is None:
            return "no optimizer step was taken"
        steps, epoch, steps_per_epoch = self.position
        if self.epochs < 0:
            return f"step {steps}, epoch {epoch:g}, of {steps_per_epoch} steps each"
        if self.steps_needed is not None and steps > self.steps_needed:
            return (
                f"step {steps}, epoch {epoch:g}, of {steps_per_epoch} steps each; the recipe ended "
                f"at step {self.steps_needed}, epoch {self.epochs:g}"
            )
        return (
            f"step {steps} of {self.steps_needed}, epoch {epoch:g} of {self.epochs:g}, "
            f"of {steps_per_epoch} steps each"
        )


def summarize(
    modifiers: Iterable[Any], position: Position | None, module: Module | None = None
) -> RunSummary:
    """Return where a run stands; ``module`` tells of modifiers that are not initialised."""
    enabled = [modifier for modifier in modifiers if modifier.enabled]
    known = [m for m in enabled if getattr(m, "steps_resolved", False)]
    bounds = (getattr(m, field) for m in known for field in ("start_epoch", "end_epoch"))
    epochs = max(bounds, default=-1.0)
    needed = None if position is None else steps_to(epochs, position.steps_per_epoch)
    pruning = (_summary_of(m, position, module) for m in enabled if isinstance(m, Prunes))
    return RunSummary(position, epochs, needed, tuple(pruning))


def steps_to(epoch: float, steps_per_epoch: int) -> int:
    """Return the optimizer steps that a run of so many epochs takes; 0 for a negative epoch."""
    return max(0, math.ceil(round(epoch * steps_per_epoch, 6)))


def _summary_of(modifier: Any, position: Position | None, module: Module | None) -> PruningSummary:
    masks = getattr(modifier, "_masks", None)  # of those that prune weights
    found: Sequence[NamedLayerParam] = () if masks is None else masks.found
    if not found and module is not None:
        found = modifier.selects(module)
    sizes = [one.param.numel() for one in found]
    start, end = modifier.start_epoch, modifier.end_epoch
    aim, removed = getattr(modifier, "aim", ""), getattr(modifier, "removed", False)
    done, needed = 0, None
    if position is not None:
        first = steps_to(start, position.steps_per_epoch)
        needed = None if end < 0 else steps_to(end, position.steps_per_epoch) - first
        done = max(0, position.steps - first)
        done = done if needed is None else min(done, needed)
    return PruningSummary(
        type(modifier).__name__,
        tuple(one.name for one in found),
        None if removed else _overall(getattr(modifier, "applied_sparsity", None), sizes),
        tensor_list_sparsity(local_part(one.param) for one in found)
        if found and not removed
        else None,
        None if aim else _overall(asked_sparsities(modifier, ONE_SHOT, 1), sizes),
        span_of(modifier),
        done,
        needed,
        tuple(one.name for one in found if _is_empty(one)),
        tuple(one.name for one in found if not bool(local_part(one.param).isfinite().all())),
        aim,
    )


def _is_empty(one: NamedLayerParam) -> bool:
    param = one.param.detach()
    return param.numel() > 0 and not is_sharded(param) and not bool(param.any())


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])


def _overall(asked: Any, sizes: Sequence[int]) -> float | None:
    """Return the sparsity of all parameters together, of which each has the one asked for."""
    values = list(asked) if isinstance(asked, (list, tuple)) else [asked]
    if any(value is None for value in values) or not values:
        return None
    weights = list(sizes) if len(sizes) == len(values) and any(sizes) else [1] * len(values)
    together = zip(values, weights, strict=True)
    return sum(value * size for value, size in together) / sum(weights)


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:.4g} %"
