"""What the files of a run directory hold (docs/run_directory.md), and reading it with tolerance."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, ValidationError

#: Marks ``run.json``; the number rises when old readers would misunderstand new files.
FORMAT = "sparseml-run/1"

Model = TypeVar("Model", bound=BaseModel)
_Place = tuple[int | str, ...]


class Finding(NamedTuple):
    """A sentence, and whether it tells a ``gain``, a ``loss``, that things are the ``same``, or
    just a fact (``info``)."""

    kind: str
    text: str


class _Part(BaseModel):
    # what other trainers add is kept and ends up in report.json
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class RunInfo(_Part):
    """``run.json``: that this is a run, and how it stands."""

    format: str = FORMAT
    name: str
    group: str | None = None
    status: str = "running"
    created: str | None = None
    finished: str | None = None
    error: str | None = None


class ScheduledUpdate(_Part):
    """The sparsity that a modifier asks for from an optimizer step on; lowest and highest where
    it differs between parameters."""

    step: NonNegativeInt
    epoch: float
    lowest: float
    highest: float


class PruningSchedule(_Part):
    """The updates of one modifier."""

    modifier: str
    stage: str | None = None
    updates: list[ScheduledUpdate] = Field(default_factory=list)


class Schedule(_Part):
    """``schedule.json``: when the recipe prunes, and to what sparsity."""

    steps_per_epoch: NonNegativeInt
    modifiers: list[PruningSchedule] = Field(default_factory=list)


class Storage(_Part):
    """Bytes that all tensors take: as they are, compressed, and as a bit per weight plus the
    values that are not zero."""

    dense: NonNegativeInt
    gzip: NonNegativeInt | None = None
    zstd: NonNegativeInt | None = None
    bitmask: NonNegativeInt | None = None


class Flops(_Part):
    """Floating-point operations of one forward pass, a multiplication and an addition being two;
    ``sparse`` leaves out those with a weight that is zero."""

    dense: NonNegativeInt
    sparse: NonNegativeInt
    batch_size: NonNegativeInt | None = None


class Latency(_Part):
    """Milliseconds of a forward pass over a batch; ``settled`` tells whether the quartiles stayed
    where they were when more rounds were taken."""

    batch_size: NonNegativeInt
    device: str
    threads: NonNegativeInt | None = None
    rounds: NonNegativeInt
    warmup: NonNegativeInt = 0
    median_ms: NonNegativeFloat
    lower_quartile_ms: NonNegativeFloat
    upper_quartile_ms: NonNegativeFloat
    fastest_ms: NonNegativeFloat | None = None
    slowest_ms: NonNegativeFloat | None = None
    samples_per_second: NonNegativeFloat
    settled: bool | None = None


class Layer(_Part):
    """Zeros of one parameter; ``asked`` is the sparsity asked for, of this parameter or, where
    ``scope`` is ``"global"``, of all parameters pruned together."""

    name: str
    kind: str | None = None
    shape: list[int] = Field(default_factory=list)
    parameters: NonNegativeInt
    zeros: NonNegativeInt
    asked: float | None = None
    scope: str | None = None


class Place(_Part):
    """Units of one kind in one place, before and after some were removed: ``stream``, ``heads``,
    ``qk`` and ``vo`` (channels of queries and keys, of values), ``fc`` (neurons), ``channels``."""

    kind: str
    name: str
    before: NonNegativeInt
    after: NonNegativeInt


class Variant(_Part):
    """One form of the model: ``dense`` (before), ``sparse`` (the run's own), ``shrunk``.

    ``samples`` is how many its metrics were measured on; ``trained`` is false for weights that were
    just initialised; ``places`` are those that lost units.
    """

    description: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    samples: NonNegativeInt | None = None
    trained: bool | None = None
    parameters: NonNegativeInt | None = None
    nonzero: NonNegativeInt | None = None
    storage: Storage | None = None
    flops: Flops | None = None
    latency: list[Latency] = Field(default_factory=list)
    places: list[Place] = Field(default_factory=list)


class Result(_Part):
    """``result.json``: what the run ended with."""

    layers: list[Layer] = Field(default_factory=list)
    variants: dict[str, Variant] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


def validated(kind: type[Model], content: Any) -> tuple[Model | None, list[str]]:
    """Read as much of ``content`` as is well formed.

    :return: the model without its malformed parts, None if nothing is left of it; and a line for
        every part that was left out
    """
    left = copy.deepcopy(content)
    problems: list[str] = []
    while True:
        try:
            return kind.model_validate(left), problems
        except ValidationError as error:
            malformed = _malformed(error)
        for place, faults in malformed.items():
            named = ".".join(str(key) for key in place) or "the content"
            problems.append(f"{named}: {', '.join(faults)}")
        # of a list the last first, and what is inside before what it is in
        order = sorted(malformed, key=lambda place: [(isinstance(k, str), k) for k in place])
        if not sum(_remove(left, place) for place in reversed(order)):
            return None, problems


def _malformed(error: ValidationError) -> dict[_Place, list[str]]:
    """What is wrong where; a part that lacks a field is of no use."""
    found: dict[_Place, list[str]] = {}
    for fault in error.errors():
        place, what = fault["loc"], fault["msg"]
        if fault["type"] == "missing":
            place, what = place[:-1], f"lacks {place[-1]!r}"
        found.setdefault(place, []).append(what)
    return found


def _remove(content: Any, place: _Place) -> bool:
    """Take a value out of nested dicts and lists; whether there was one."""
    try:
        for key in place[:-1]:
            content = content[key]
        del content[place[-1]]
    except (LookupError, TypeError):
        return False
    return True
