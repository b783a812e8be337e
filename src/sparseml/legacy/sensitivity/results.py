"""
How a model's loss or speed reacts to pruning its layers one by one, and to learning rates.

These classes hold, save, print and plot measurements; they do not take any.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparseml.legacy.helpers.interpolation import interpolated_integral
from sparseml.legacy.sensitivity.measurements import Analysis, Table
from sparseml.utils.text import did_you_mean

__all__ = [
    "LRLossSensitivityAnalysis",
    "PruningLossSensitivityAnalysis",
    "PruningPerfSensitivityAnalysis",
    "PruningSensitivityResult",
    "default_pruning_sparsities_loss",
    "default_pruning_sparsities_perf",
]

_Plain = dict[str, Any]
_COARSE = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)
_COMPARED = 0.9


def default_pruning_sparsities_loss(extended: bool = False) -> tuple[float, ...]:
    """
    Return sparsities at which to measure the loss.

    :param extended: every hundredth from 0 to 0.99 instead of a choice of ten
    """
    return tuple(step / 100 for step in range(100)) if extended else _COARSE


def default_pruning_sparsities_perf() -> tuple[float, ...]:
    """Return sparsities at which to measure the speed."""
    return _COARSE


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


class PruningSensitivityResult:
    """
    Measurements of one layer, or of the whole model, at several sparsities.

    :param id_: identifies what was pruned, None for nothing but its name
    :param name: name of what was pruned
    :param index: its position in the model
    :param measurements: sparsity → measured values
    :param baseline: the sparsity that counts as dense
    """

    def __init__(
        self,
        id_: Any,
        name: str,
        index: int,
        measurements: Mapping[float, Iterable[float]] | None = None,
        baseline: float | None = None,
    ) -> None:
        self.id_ = id_
        self.name = name
        self.index = index
        self._measurements = {
            float(sparsity): list(values) for sparsity, values in (measurements or {}).items()
        }
        self._baseline = baseline

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id_!r}, {self.name!r}, {self.index}, {self.averages})"

    def add_measurement(self, sparsity: float, value: float, baseline: bool = False) -> None:
        """
        Add a measured value.

        :param baseline: whether this sparsity is what the others are compared with
        """
        self._measurements.setdefault(float(sparsity), []).append(float(value))
        if baseline:
            self._baseline = float(sparsity)

    @property
    def averages(self) -> dict[float, float]:
        """Sparsity → mean of the measured values, by rising sparsity."""
        return {sparsity: _mean(values) for sparsity, values in sorted(self._measurements.items())}

    @property
    def has_baseline(self) -> bool:
        """Whether there is something to compare with."""
        return self._baseline is not None

    @property
    def baseline_average(self) -> float:
        """
        The mean of the values to compare with.

        :raises ValueError: without a baseline
        """
        if self._baseline is None:
            raise ValueError(f"no baseline was measured for {self.name}")
        return self.averages[self._baseline]

    @property
    def sparse_average(self) -> float:
        """
        The mean of all sparsities and all averages together, as in SparseML 1.x.

        It only serves to compare layers that were measured at the same sparsities.
        """
        return _mean([number for pair in self.averages.items() for number in pair])

    @property
    def sparse_integral(self) -> float:
        """The area under the averages over sparsity, by the trapezoid rule."""
        return interpolated_integral(list(self.averages.items()))

    def sparse_comparison(self, sparsity: float = _COMPARED) -> float:
        """
        Return how far the average measured nearest to ``sparsity`` is above the baseline.

        :raises ValueError: without a baseline
        """
        averages = self.averages
        nearest = min(averages, key=lambda measured: abs(measured - sparsity))
        return averages[nearest] - self.baseline_average

    def dict(self) -> _Plain:
        """Return all of it as plain data."""
        return {
            "id": self.id_,
            "name": self.name,
            "index": self.index,
            "baseline": self._baseline,
            "measurements": [list(pair) for pair in sorted(self._measurements.items())],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PruningSensitivityResult:
        """Undo :meth:`dict`."""
        return cls(
            values["id"],
            values["name"],
            values["index"],
            dict(values["measurements"]),
            values["baseline"],
        )


class _PruningSensitivityAnalysis(Analysis):
    """Results of one layer each."""

    x_label = "sparsity"

    def __init__(self, results: Iterable[PruningSensitivityResult] = ()) -> None:
        self._results = list(results)

    @property
    def results(self) -> list[PruningSensitivityResult]:
        """One for each layer, by the position in the model."""
        return sorted(self._results, key=lambda result: result.index)

    def add_result(
        self,
        id_: Any,
        name: str,
        index: int,
        sparsity: float,
        measurement: float,
        baseline: bool = False,
    ) -> None:
        """
        Add a measurement to the layer's result, which is made as needed.

        :param id_: identifies the layer; None if its name does
        :param baseline: whether the layer was dense
        """
        for result in self._results:
            if (result.id_, result.name) == (id_, name):
                break
        else:
            result = PruningSensitivityResult(id_, name, index)
            self._results.append(result)
        result.add_measurement(sparsity, measurement, baseline)

    def get_result(self, id_or_name: Any) -> PruningSensitivityResult:
        """
        Return the result of a layer.

        :raises KeyError: naming the nearest names, if there is none
        """
        for result in self._results:
            if id_or_name == result.name or (result.id_ is not None and id_or_name == result.id_):
                return result
        hint = did_you_mean(str(id_or_name), [result.name for result in self._results])
        raise KeyError(f"no result of {id_or_name!r}{hint}")

    def dict(self) -> _Plain:
        """Return all of it as plain data."""
        return {"results": [result.dict() for result in self.results]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Any:
        """Undo :meth:`dict`."""
        return cls([PruningSensitivityResult.from_dict(result) for result in values["results"]])

    @property
    @abstractmethod
    def y_label(self) -> str:
        """What was measured."""

    def table(self) -> Table:
        """Return layers with their averages' integral and what 90 % sparsity costs."""
        rows = [
            (
                result.name,
                result.sparse_integral,
                result.sparse_comparison() if result.has_baseline else None,
            )
            for result in self.results
        ]
        return ("layer", "integral", f"at {_COMPARED} against dense"), rows

    def curves(self) -> Mapping[str, Mapping[float, float]]:
        """Return each layer's averages."""
        return {result.name: result.averages for result in self.results}


class PruningLossSensitivityAnalysis(_PruningSensitivityAnalysis):
    """How the loss, or a stand-in for it, grows when layers are pruned."""

    y_label = "loss"


class PruningPerfSensitivityAnalysis(_PruningSensitivityAnalysis):
    """How long a batch takes, in seconds, when layers are pruned."""

    y_label = "seconds"


class LRLossSensitivityAnalysis(Analysis):
    """What the loss is after some steps at a learning rate."""

    x_label, y_label = "learning rate", "loss"
    x_scale = "log"

    def __init__(self, measurements: Mapping[float, Iterable[float]] | None = None) -> None:
        self._measurements = {
            float(lr): [float(loss) for loss in losses]
            for lr, losses in (measurements or {}).items()
        }

    @property
    def results(self) -> list[_Plain]:
        """``lr``, ``loss_measurements`` and ``loss_average``, by rising rate."""
        return [
            {"lr": lr, "loss_measurements": list(losses), "loss_average": _mean(losses)}
            for lr, losses in sorted(self._measurements.items())
        ]

    def add_result(self, lr: float, loss_measurements: Sequence[float]) -> None:
        """
        Add losses measured at a learning rate.

        :raises ValueError: without a loss
        """
        if not loss_measurements:
            raise ValueError(f"no loss was measured at the learning rate {lr}")
        self._measurements.setdefault(float(lr), []).extend(map(float, loss_measurements))

    def get_result(self, lr: float) -> _Plain:
        """
        Return the entry of :attr:`results` for a learning rate.

        :raises KeyError: listing the rates that were measured
        """
        for result in self.results:
            if result["lr"] == lr:
                return result
        raise KeyError(f"no result at {lr}, there are {sorted(self._measurements)}")

    def dict(self) -> _Plain:
        """Return all of it as plain data."""
        return {"results": self.results}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LRLossSensitivityAnalysis:
        """Undo :meth:`dict`."""
        return cls({result["lr"]: result["loss_measurements"] for result in values["results"]})

    def table(self) -> Table:
        """Return rates and average losses."""
        rows = [(str(result["lr"]), result["loss_average"]) for result in self.results]
        return ("learning rate", "loss"), rows

    def curves(self) -> Mapping[str, Mapping[float, float]]:
        """Return the average losses."""
        return {"loss": {result["lr"]: result["loss_average"] for result in self.results}}
