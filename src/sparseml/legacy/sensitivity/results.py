"""
How a model's loss or speed reacts to pruning its layers one by one, and to learning rates.

These classes hold, save, print and plot measurements; they do not take any.
"""

from __future__ import annotations

import math
import os
import statistics
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from sparseml.legacy.helpers.interpolation import interpolated_integral
from sparseml.legacy.sensitivity.measurements import (
    Analysis,
    NoResultError,
    Table,
    draw,
    draw_bars,
)
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
_Path = str | os.PathLike[str]
_COARSE = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)
_FOR_SPEED = (0.0, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99)
_COMPARED = 0.9
_MODEL = "__model__"
_DEFAULT_TITLE = "__default__"


def default_pruning_sparsities_loss(extended: bool) -> tuple[float, ...]:
    """
    Return sparsities at which to measure the loss.

    :param extended: every hundredth from 0 to 0.99 instead of a choice of ten
    """
    return tuple(step / 100 for step in range(100)) if extended else _COARSE


def default_pruning_sparsities_perf() -> tuple[float, ...]:
    """Return sparsities at which to measure the speed."""
    return _FOR_SPEED


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


class PruningSensitivityResult:
    """
    Measurements of one layer, or of the whole model, at several sparsities.

    :param id_: identifies what was pruned, None for nothing but its name
    :param name: name of what was pruned
    :param index: its position in the model
    :param baseline_measurement_index: which of the sparsities, in the order in which they were
        added, counts as dense; -1 for none
    :param baseline_measurement_key: that sparsity; None for none
    :param sparse_measurements: sparsity → measured values, as a mapping or pairs
    """

    def __init__(
        self,
        id_: Any,
        name: str,
        index: int,
        baseline_measurement_index: int = -1,
        baseline_measurement_key: float | None = None,
        sparse_measurements: (
            Mapping[float, Iterable[float]] | Iterable[tuple[float, Iterable[float]]] | None
        ) = None,
    ) -> None:
        self._id = id_
        self._name = name
        self._index = index
        self._baseline_measurement_index = baseline_measurement_index
        self._baseline_measurement_key = baseline_measurement_key
        self._sparse_measurements = OrderedDict(
            (float(sparsity), [float(value) for value in values])
            for sparsity, values in OrderedDict(sparse_measurements or {}).items()
        )

    def __repr__(self) -> str:
        averages = dict(self.averages)
        return f"{type(self).__name__}({self._id!r}, {self._name!r}, {self._index}, {averages})"

    id_ = property(attrgetter("_id"), doc="Identifies what was pruned.")
    name = property(attrgetter("_name"), doc="Name of what was pruned.")
    index = property(attrgetter("_index"), doc="Its position in the model.")
    baseline_measurement_index = property(
        attrgetter("_baseline_measurement_index"), doc="Which of the sparsities counts as dense."
    )
    baseline_measurement_key = property(
        attrgetter("_baseline_measurement_key"), doc="The sparsity that counts as dense."
    )
    sparse_measurements = property(
        attrgetter("_sparse_measurements"), doc="Sparsity → values, in the order added."
    )

    def add_measurement(self, sparsity: float, loss: float, baseline: bool) -> None:
        """
        Add a measured value.

        :param baseline: whether this sparsity is what the others are compared with; only the first
            value of a sparsity can make it so
        """
        sparsity = float(sparsity)
        if sparsity not in self._sparse_measurements:
            if baseline:
                self._baseline_measurement_index = len(self._sparse_measurements)
                self._baseline_measurement_key = sparsity
            self._sparse_measurements[sparsity] = []
        self._sparse_measurements[sparsity].append(float(loss))

    @property
    def averages(self) -> OrderedDict[float, float]:
        """Sparsity → mean of the measured values, in the order added."""
        return OrderedDict((s, _mean(values)) for s, values in self._sparse_measurements.items())

    @property
    def has_baseline(self) -> bool:
        """Whether there is something to compare with."""
        return self._baseline_measurement_index > -1

    @property
    def baseline_average(self) -> float:
        """
        The mean of the values to compare with.

        :raises ValueError: without a baseline
        """
        if not self.has_baseline:
            raise ValueError(f"no baseline was measured for {self._name}")
        return list(self.averages.values())[self._baseline_measurement_index]

    @property
    def sparse_average(self) -> float:
        """
        The mean of all sparsities and all averages together, as in SparseML 1.x; 0 for none.

        It only serves to compare layers that were measured at the same sparsities.
        """
        return _mean([number for pair in self.averages.items() for number in pair])

    @property
    def sparse_integral(self) -> float:
        """The area under the averages over sparsity, by the trapezoid rule."""
        return interpolated_integral(list(self.averages.items()))

    def sparse_comparison(self, compare_index: int = -1) -> float:
        """
        Return how far an average is above the baseline's, or above the first without a baseline.

        :param compare_index: which one, in the order in which the sparsities were added; negative
            for the one whose sparsity is nearest to 0.9
        :return: the difference; 0 for fewer than two sparsities
        """
        averages = self.averages
        if len(averages) < 2:
            return 0.0
        values = list(averages.values())
        if compare_index < 0:
            distances = [abs(sparsity - _COMPARED) for sparsity in averages]
            compare_index = distances.index(min(distances))
        return values[compare_index] - values[max(self._baseline_measurement_index, 0)]

    def dict(self) -> _Plain:
        """Return measurements and what follows from them as plain data."""
        return {
            "id": self._id,
            "name": self._name,
            "index": self._index,
            "baseline_measurement_index": self._baseline_measurement_index,
            "has_baseline": self.has_baseline,
            "baseline_measurement_key": self._baseline_measurement_key,
            "sparse_measurements": [
                [sparsity, list(values)] for sparsity, values in self._sparse_measurements.items()
            ],
            "averages": dict(self.averages),
            "baseline_average": self.baseline_average if self.has_baseline else None,
            "sparse_average": self.sparse_average,
            "sparse_integral": self.sparse_integral,
            "sparse_comparison": self.sparse_comparison(),
        }

    @classmethod
    def from_dict(cls, dictionary: Mapping[str, Any]) -> PruningSensitivityResult:
        """Undo :meth:`dict`; what this package wrote before it is read as well."""
        given = (dictionary["id"], dictionary["name"], dictionary["index"])
        if "sparse_measurements" in dictionary:
            index = dictionary["baseline_measurement_index"]
            measured = OrderedDict(dictionary["sparse_measurements"])
            key = float(list(measured)[index]) if index > -1 else None
        else:
            key, measured = dictionary["baseline"], OrderedDict(dictionary["measurements"])
            index = -1 if key is None else [float(sparsity) for sparsity in measured].index(key)
        return cls(*given, index, key, measured)


class _PruningSensitivityAnalysis(Analysis):
    """Results of one layer each."""

    def __init__(self) -> None:
        self._results: list[PruningSensitivityResult] = []

    results = property(attrgetter("_results"), doc="One for each layer, in the order added.")

    def add_result(
        self,
        id_: Any,
        name: str,
        index: int,
        sparsity: float,
        measurement: float,
        baseline: bool,
    ) -> None:
        """
        Add a measurement to the layer's result, which is made as needed.

        :param id_: identifies the layer; None if its name does
        :param baseline: whether the layer was dense
        """
        for result in self._results:
            if result.name == name if id_ is None else result.id_ == id_:
                break
        else:
            result = PruningSensitivityResult(id_, name, index)
            self._results.append(result)
        result.add_measurement(sparsity, measurement, baseline)

    def get_result(self, id_or_name: Any) -> PruningSensitivityResult:
        """
        Return the result of a layer.

        :raises ValueError: naming the nearest names, if there is none (a KeyError too)
        """
        for result in self._results:
            if id_or_name == result.name or (result.id_ is not None and id_or_name == result.id_):
                return result
        hint = did_you_mean(str(id_or_name), [result.name for result in self._results])
        raise NoResultError(f"no result of {id_or_name!r}{hint}")

    def dict(self) -> _Plain:
        """Return all of it as plain data."""
        return {"results": [result.dict() for result in self._results]}

    def _read(self, dictionary: Mapping[str, Any]) -> None:
        self._results = [PruningSensitivityResult.from_dict(r) for r in dictionary["results"]]

    def table(self) -> Table:
        """Return layers with their averages' integral and what 90 % sparsity costs."""
        rows = [
            (
                result.name,
                result.sparse_integral,
                result.sparse_comparison() if result.has_baseline else None,
            )
            for result in self._results
        ]
        return ("layer", "integral", f"at {_COMPARED} against dense"), rows


class PruningLossSensitivityAnalysis(_PruningSensitivityAnalysis):
    """How the loss, or a stand-in for it, grows when layers are pruned."""

    @property
    def results_model(self) -> PruningSensitivityResult:
        """For each sparsity the sum of the layers' averages."""
        sums: OrderedDict[float, float] = OrderedDict()
        baselines = set()
        for result in self._results:
            for sparsity, average in result.averages.items():
                sums[sparsity] = sums.get(sparsity, 0.0) + average
            baselines.add(result.baseline_measurement_key)
        model = PruningSensitivityResult(_MODEL, _MODEL, -1)
        for sparsity, total in sums.items():
            model.add_measurement(sparsity, total, baseline=sparsity in baselines)
        return model

    @classmethod
    def from_dict(cls, dictionary: Mapping[str, Any]) -> PruningLossSensitivityAnalysis:
        """Undo :meth:`dict`."""
        analysis = cls()
        analysis._read(dictionary)
        return analysis

    def plot(
        self,
        path: _Path | None,
        plot_integral: bool,
        normalize: bool = True,
        title: str | None = None,
    ) -> tuple[Any, Any]:
        """
        Draw a bar for each layer; needs matplotlib.

        :param path: where to save the picture; None to show it
        :param plot_integral: draw the integrals over sparsity, otherwise the averages
        :param normalize: take the mean off and divide by the standard deviation
        :return: ``(None, None)`` if it was saved, otherwise figure and axes
        :raises ImportError: without matplotlib
        """
        label = "integral" if plot_integral else "average"
        bars = {result.name: getattr(result, f"sparse_{label}") for result in self._results}
        if normalize:
            bars = _standardised(bars)
        title = "Pruning Loss Sensitivity" if title == _DEFAULT_TITLE else title
        return draw_bars(bars, path, title, f"{label} of the loss{', standardised' * normalize}")


def _standardised(bars: Mapping[str, float]) -> dict[str, float]:
    mean = _mean(list(bars.values()))
    spread = statistics.pstdev(bars.values()) if bars else 0.0
    return {name: (value - mean) / spread if spread else 0.0 for name, value in bars.items()}


class PruningPerfSensitivityAnalysis(_PruningSensitivityAnalysis):
    """
    How long a batch takes, in seconds, when layers, or all of the model, are pruned.

    :param num_cores: processor cores that were used; -1 where unknown
    :param batch_size: samples per batch; -1 where unknown
    """

    def __init__(self, num_cores: int, batch_size: int) -> None:
        super().__init__()
        self._num_cores = num_cores
        self._batch_size = batch_size
        self._results_model = PruningSensitivityResult(_MODEL, "model", -1)

    num_cores = property(attrgetter("_num_cores"), doc="Processor cores that were used.")
    batch_size = property(attrgetter("_batch_size"), doc="Samples per batch.")
    results_model = property(attrgetter("_results_model"), doc="The measurements of the model.")

    def add_model_result(self, sparsity: float, measurement: float, baseline: bool) -> None:
        """
        Add a measurement of the whole model.

        :param baseline: whether it was dense
        """
        self._results_model.add_measurement(sparsity, measurement, baseline)

    def dict(self) -> _Plain:
        """Return all of it as plain data."""
        return {
            "num_cores": self._num_cores,
            "batch_size": self._batch_size,
            **super().dict(),
            "results_model": self._results_model.dict(),
        }

    @classmethod
    def from_dict(cls, dictionary: Mapping[str, Any]) -> PruningPerfSensitivityAnalysis:
        """Undo :meth:`dict`; what this package wrote before it is read as well."""
        analysis = cls(dictionary.get("num_cores", -1), dictionary.get("batch_size", -1))
        analysis._read(dictionary)
        if "results_model" in dictionary:
            model = PruningSensitivityResult.from_dict(dictionary["results_model"])
            analysis._results_model = model
        return analysis

    def plot(self, path: _Path | None, title: str | None = None) -> tuple[Any, Any]:
        """
        Draw for each layer what 90 % sparsity changes; needs matplotlib.

        :param path: where to save the picture; None to show it
        :return: ``(None, None)`` if it was saved, otherwise figure and axes
        :raises ImportError: without matplotlib
        """
        bars = {result.name: result.sparse_comparison() for result in self._results}
        title = "Pruning Performance Sensitivity" if title == _DEFAULT_TITLE else title
        return draw_bars(bars, path, title, f"seconds at {_COMPARED} against dense")


class LRLossSensitivityAnalysis(Analysis):
    """What the loss is after some steps at a learning rate."""

    def __init__(self) -> None:
        self._results: list[_Plain] = []

    results = property(
        attrgetter("_results"),
        doc="``lr``, ``loss_measurements`` and ``loss_avg`` of each measurement, in their order.",
    )

    def add_result(self, lr: float, loss_measurements: Sequence[float]) -> None:
        """
        Add losses measured at a learning rate; earlier ones of the same rate stay apart.

        :raises ValueError: without a loss
        """
        losses = [float(loss) for loss in loss_measurements]
        if not losses:
            raise ValueError(f"no loss was measured at the learning rate {lr}")
        self._results.append(
            {"lr": float(lr), "loss_measurements": losses, "loss_avg": _mean(losses)}
        )

    def get_result(self, lr: float) -> _Plain:
        """
        Return the first entry of :attr:`results` for a learning rate.

        :raises ValueError: listing the rates that were measured (a KeyError too)
        """
        for result in self._results:
            if result["lr"] == lr:
                return result
        rates = [result["lr"] for result in self._results]
        raise NoResultError(f"no result at {lr}, there are {rates}")

    def dict(self) -> _Plain:
        """Return all of it as plain data."""
        return {"results": self._results}

    @classmethod
    def from_dict(cls, dictionary: Mapping[str, Any]) -> LRLossSensitivityAnalysis:
        """Undo :meth:`dict`."""
        analysis = cls()
        for result in dictionary["results"]:
            analysis.add_result(result["lr"], result["loss_measurements"])
        return analysis

    def table(self) -> Table:
        """Return rates and average losses."""
        rows = [(str(result["lr"]), result["loss_avg"]) for result in self._results]
        return ("learning rate", "loss"), rows

    def plot(self, path: _Path | None, title: str | None = None) -> tuple[Any, Any]:
        """
        Draw the average losses over the rates, on a logarithmic axis; needs matplotlib.

        :param path: where to save the picture; None to show it
        :param title: ``__default__`` for ``LR Sensitivity``
        :return: ``(None, None)`` if it was saved, otherwise figure and axes
        :raises ImportError: without matplotlib
        """
        points = sorted((result["lr"], result["loss_avg"]) for result in self._results)
        heading = "LR Sensitivity" if title == _DEFAULT_TITLE else title or ""

        def fill(axes: Any) -> None:
            axes.plot([lr for lr, _ in points], [loss for _, loss in points], marker=".")
            axes.set(xlabel="learning rate", ylabel="loss", xscale="log", title=heading)

        return draw(fill, path)
