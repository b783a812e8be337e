"""What a model costs when some of its units have gone: parameters, operations, measured time."""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import Module
from torch.nn.attention import SDPBackend, sdpa_kernel

from sparseml.pytorch.units.probing import call_model
from sparseml.pytorch.units.removable import Removable, remove_units
from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.params import distinct_params

_MOST_ROUNDS, _FEWEST_ROUNDS = 15, 3
_SEARCHES = 10
_TABLE_LEVELS = 4


class Costs(ABC):
    """The costs of a model and of smaller copies of it.

    :param module: the model
    :param units: what can go
    :param inputs: a batch to run it on
    """

    def __init__(self, module: Module, units: Sequence[Removable], inputs: Any) -> None:
        self._model = unwrap_module(module, root=True)
        self._units, self._inputs = list(units), inputs
        self._sizes = [one.group.size for one in units]
        self._shares: dict[tuple[int, ...], float] = {}
        self._levels = _TABLE_LEVELS

    @abstractmethod
    def _share(self, smaller: Module) -> float:
        """Return the cost of a smaller copy, as a share of that of the model."""

    def share(self, kept: Sequence[int]) -> float:
        """Return the share of the model's cost that is left when groups keep so many units."""
        key = tuple(kept)
        if key not in self._shares:
            self._shares[key] = self._share(smaller_copy(self._model, self._units, kept))
        return self._shares[key]

    def again(self, kept: Sequence[int]) -> float:
        """Return :meth:`share` as it is when more time is taken to measure."""
        return self.share(kept)

    def table(self, levels: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the share of the cost that is left with each level of each group, others whole.

        Groups alike (as those of repeated blocks) are measured together, at some levels, and what
        lies between is interpolated.

        :param levels: of each group, from all units down
        """
        alike: dict[Any, list[int]] = {}
        for place, units in enumerate(self._units):
            alike.setdefault(self._signature(units), []).append(place)
        self._plan(len(alike))
        found: list[list[float]] = [[]] * len(levels)
        for same in alike.values():
            column = self._column(same, levels[same[0]])
            for place in same:
                found[place] = column
        return found

    def told(self) -> str:
        """Return what was measured, for the log."""
        return "counted"

    def _plan(self, kinds: int) -> None:
        """Prepare to measure copies for a table of so many kinds of groups, and for a search."""
        self._expected = kinds * self._levels + _SEARCHES

    def _column(self, same: Sequence[int], levels: Sequence[int]) -> list[float]:
        last = len(levels) - 1
        count = min(self._levels, last)
        measured = sorted({round(last * i / count) for i in range(1, count + 1)}) if last else []
        points = [(levels[0], 1.0)]
        for place in measured:
            kept = [levels[place] if i in same else size for i, size in enumerate(self._sizes)]
            saved = (1.0 - self.share(kept)) / len(same)
            # noise makes no smaller model slower
            points.append((levels[place], min(1.0 - saved, points[-1][1])))
        return [_between(points, level) for level in levels]

    def _signature(self, units: Removable) -> Any:
        members = [
            (tuple(self._model.get_parameter(member.param).shape), member.dim)
            for member in units.group.members
        ]
        return units.kind, units.group.size, tuple(sorted(members))


def _between(points: Sequence[tuple[int, float]], level: int) -> float:
    for (high, above), (low, below) in itertools.pairwise(points):
        if low <= level <= high:
            return below + (above - below) * (level - low) / (high - low)
    return points[0][1]


def count_params(model: Module, inputs: Any = None) -> float:
    """Return the entries of all parameters, tied ones once."""
    return float(sum(found.param.numel() for found in distinct_params(model)))


def count_flops(model: Module, inputs: Any) -> float:
    """Return the operations of a forward pass, as ``torch.utils.flop_counter`` counts them."""
    from torch.utils.flop_counter import FlopCounterMode  # loads triton, where there is one

    counter = FlopCounterMode(display=False)
    slow = sdpa_kernel(SDPBackend.MATH)  # whose parts are counted
    with evaluating(model), torch.inference_mode(), slow, counter:
        call_model(model, inputs)
    return float(counter.get_total_flops())


MEASURES: Mapping[str, Callable[[Module, Any], float]] = {
    "params": count_params,
    "flops": count_flops,
}
"""What is counted, by the goal that asks for it."""


class Counted(Costs):
    """What can be counted."""

    def __init__(
        self,
        measure: Callable[[Module, Any], float],
        module: Module,
        units: Sequence[Removable],
        inputs: Any,
    ) -> None:
        super().__init__(module, units, inputs)
        self._measure = measure
        self._whole = measure(self._model, inputs)

    def _share(self, smaller: Module) -> float:
        return self._measure(smaller, self._inputs) / self._whole


class Seconds(Costs):
    """Time of a forward pass, in turns with the model as it is.

    :param seconds: for all measurements together, about
    """

    def __init__(
        self, module: Module, units: Sequence[Removable], inputs: Any, seconds: float
    ) -> None:
        super().__init__(module, units, inputs)
        self._seconds = seconds
        self._model = copy.deepcopy(self._model)  # whose modes are left alone
        self._begin, self._measured = time.perf_counter(), 0
        times = _turns({"model": self._model}, inputs, _FEWEST_ROUNDS)["model"]
        self._once, self._rounds = statistics.median(times), _FEWEST_ROUNDS

    def _plan(self, kinds: int) -> None:
        # copies in turns with the model, one round more than count each
        affordable = self._seconds / max(2 * self._once, 1e-6)
        levels = affordable / (_FEWEST_ROUNDS + 1) - _SEARCHES
        self._levels = min(max(int(levels / max(kinds, 1)), 1), _TABLE_LEVELS)
        super()._plan(kinds)
        self._rounds = min(max(round(affordable / self._expected) - 1, 1), _MOST_ROUNDS)

    def told(self) -> str:
        shape = _shape(self._inputs)
        return (
            f"{self._measured} smaller models were timed on {shape}, {self._rounds} rounds each in "
            f"turns with the model ({1000 * self._once:.3g} ms), in "
            f"{time.perf_counter() - self._begin:.1f} s"
        )

    def _share(self, smaller: Module) -> float:
        self._measured += 1
        return time_share(self._model, smaller, self._inputs, self._rounds)

    def again(self, kept: Sequence[int]) -> float:
        """Measure once more, with twice as many rounds."""
        self._measured += 1
        smaller = smaller_copy(self._model, self._units, kept)
        return time_share(self._model, smaller, self._inputs, 2 * self._rounds)


def time_share(model: Module, smaller: Module, inputs: Any, rounds: int = _MOST_ROUNDS) -> float:
    """Return how long one model takes as a share of another's time: the median over turns."""
    times = _turns({"model": model, "smaller": smaller}, inputs, rounds)
    return statistics.median(
        one / other for one, other in zip(times["smaller"], times["model"], strict=True)
    )


def _turns(models: dict[str, Module], inputs: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of each of so many rounds, after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    with evaluating(*models.values()), torch.inference_mode():
        for number in range(rounds + 1):
            # each begins every other round, as what runs first may run into a colder cache
            order = list(models.items())[:: -1 if number % 2 else 1]
            for name, model in order:
                _wait(inputs)
                start = time.perf_counter()
                call_model(model, inputs)
                _wait(inputs)
                taken[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in taken.items()}


def _wait(inputs: Any) -> None:
    for tensor in torch.utils._pytree.tree_leaves(inputs):
        if isinstance(tensor, torch.Tensor) and tensor.device.type != "cpu":
            torch.accelerator.synchronize(tensor.device)
            return


def _shape(inputs: Any) -> str:
    leaves = torch.utils._pytree.tree_leaves(inputs)
    return ", ".join(
        "x".join(map(str, leaf.shape)) for leaf in leaves if isinstance(leaf, torch.Tensor)
    )


def smaller_copy(model: Module, units: Sequence[Removable], kept: Sequence[int]) -> Module:
    """Return a copy of a model in which each group keeps its first units."""
    copied = copy.deepcopy(model)
    keeps = {
        one: torch.arange(one.group.size) < left for one, left in zip(units, kept, strict=True)
    }
    remove_units(copied, keeps)
    return copied
