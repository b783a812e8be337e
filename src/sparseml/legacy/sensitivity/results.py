"""How a model's loss or speed reacts to pruning its layers one by one, and to learning rates.

These classes hold, save, print and plot measurements; they do not take any.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sparseml.legacy.sensitivity.measurements import (
    COMPARED,
    Analysis,
    NoResultError,
    PruningSensitivityResult,
    Table,
    draw,
    draw_bars,
    mean,
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
_MODEL = "__model__"
_DEFAULT_TITLE = "__default__"


def default_pruning_sparsities_loss(extended: bool) -> tuple[float, ...]:
    """Return sparsities at which to measure the loss: ten, or if extended all hundredths."""
    return tuple(step / 100 for step in range(100)) if extended else _COARSE


def default_pruning_sparsities_perf() -> tuple[float, ...]:
    """Return sparsities at which to measure the speed."""
    return (0.0, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99)


class _PruningSensitivityAnalysis(Analysis):
    """Results of one layer each."""

    def __init__(self) -> None:
        self.results: list[PruningSensitivityResult] = []

    def add_result(
        self, id_: Any, name: str, index: int, sparsity: float, measurement: float, baseline: bool
    ) -> None:
        """Add a measurement to the result, made as needed, of the layer of this id or else name."""
        for result in self.results:
            if result.name == name if id_ is None else result.id_ == id_:
                break
        else:
            result = PruningSensitivityResult(id_, name, index)
            self.results.append(result)
        result.add_measurement(sparsity, measurement, baseline)

    def get_result(self, id_or_name: Any) -> PruningSensitivityResult:
        """Return the result of a layer; a ValueError that is a KeyError names the nearest."""
        for result in self.results:
            if id_or_name == result.name or (result.id_ is not None and id_or_name == result.id_):
                return result
        hint = did_you_mean(str(id_or_name), [result.name for result in self.results])
        raise NoResultError(f"no result of {id_or_name!r}{hint}")

    def dict(self) -> _Plain:
        """Return all of it as plain data."""
        return {"results": [result.dict() for result in self.results]}

    @classmethod
    def from_dict(cls, dictionary: Mapping[str, Any]) -> Any:
        """Undo :meth:`dict`; what this package wrote before it is read as well."""
        analysis = cls()
        analysis.results = [PruningSensitivityResult.from_dict(r) for r in dictionary["results"]]
        return analysis

    def table(self) -> Table:
        """Return layers with their averages' integral and what 90 % sparsity costs."""

        def cost(result: PruningSensitivityResult) -> float | None:
            return result.sparse_comparison() if result.has_baseline else None

        rows = [(result.name, result.sparse_integral, cost(result)) for result in self.results]
        return ("layer", "integral", f"at {COMPARED} against dense"), rows


class PruningLossSensitivityAnalysis(_PruningSensitivityAnalysis):
    """How the loss, or a stand-in for it, grows when layers are pruned."""

    @property
    def results_model(self) -> PruningSensitivityResult:
        """For each sparsity the sum of the layers' averages."""
        sums: Counter[float] = Counter()
        for result in self.results:
            sums.update(result.averages)
        baselines = {result.baseline_measurement_key for result in self.results}
        model = PruningSensitivityResult(_MODEL, _MODEL, -1)
        for sparsity, total in sums.items():
            model.add_measurement(sparsity, total, baseline=sparsity in baselines)
        return model

    def plot(
        self,
        path: _Path | None,
        plot_integral: bool,
        normalize: bool = True,
        title: str | None = None,
    ) -> tuple[Any, Any]:
        """Draw a bar for each layer with :func:`draw`.

        :param plot_integral: draw the integrals over sparsity, otherwise the averages
        :param normalize: take the mean off and divide by the standard deviation
        """
        label = "integral" if plot_integral else "average"
        bars = {result.name: getattr(result, f"sparse_{label}") for result in self.results}
        if normalize and bars:
            middle, spread = mean(list(bars.values())), statistics.pstdev(bars.values())
            bars = {name: (bar - middle) / (spread or 1.0) for name, bar in bars.items()}
        title = "Pruning Loss Sensitivity" if title == _DEFAULT_TITLE else title
        return draw_bars(bars, path, title, f"{label} of the loss{', standardised' * normalize}")


class PruningPerfSensitivityAnalysis(_PruningSensitivityAnalysis):
    """Seconds that a batch takes when layers, or the model, are pruned; numbers -1 if unknown."""

    def __init__(self, num_cores: int, batch_size: int) -> None:
        super().__init__()
        self.num_cores = num_cores
        self.batch_size = batch_size
        self.results_model = PruningSensitivityResult(_MODEL, "model", -1)

    def add_model_result(self, sparsity: float, measurement: float, baseline: bool) -> None:
        """Add a measurement of the whole model, ``baseline`` saying whether it was dense."""
        self.results_model.add_measurement(sparsity, measurement, baseline)

    def dict(self) -> _Plain:
        """Return all of it as plain data."""
        return {
            "num_cores": self.num_cores,
            "batch_size": self.batch_size,
            **super().dict(),
            "results_model": self.results_model.dict(),
        }

    @classmethod
    def from_dict(cls, dictionary: Mapping[str, Any]) -> PruningPerfSensitivityAnalysis:
        """Undo :meth:`dict`; what this package wrote before it is read as well."""
        analysis = cls(dictionary.get("num_cores", -1), dictionary.get("batch_size", -1))
        analysis.results = PruningLossSensitivityAnalysis.from_dict(dictionary).results
        if "results_model" in dictionary:
            model = PruningSensitivityResult.from_dict(dictionary["results_model"])
            analysis.results_model = model
        return analysis

    def plot(self, path: _Path | None, title: str | None = None) -> tuple[Any, Any]:
        """Draw for each layer what 90 % sparsity changes, with :func:`draw`."""
        bars = {result.name: result.sparse_comparison() for result in self.results}
        title = "Pruning Performance Sensitivity" if title == _DEFAULT_TITLE else title
        return draw_bars(bars, path, title, f"seconds at {COMPARED} against dense")


class LRLossSensitivityAnalysis(Analysis):
    """What the loss is after some steps at a learning rate."""

    def __init__(self) -> None:
        self.results: list[_Plain] = []

    def add_result(self, lr: float, loss_measurements: Sequence[float]) -> None:
        """Add losses at a learning rate, at least one; earlier ones of the same rate stay apart."""
        losses = [float(loss) for loss in loss_measurements]
        if not losses:
            raise ValueError(f"no loss was measured at the learning rate {lr}")
        entry = {"lr": float(lr), "loss_measurements": losses, "loss_avg": mean(losses)}
        self.results.append(entry)

    def get_result(self, lr: float) -> _Plain:
        """Return the first entry of :attr:`results` for a rate; an error lists the rates."""
        for result in self.results:
            if result["lr"] == lr:
                return result
        rates = [result["lr"] for result in self.results]
        raise NoResultError(f"no result at {lr}, there are {rates}")

    def dict(self) -> _Plain:
        """Return all of it as plain data."""
        return {"results": self.results}

    @classmethod
    def from_dict(cls, dictionary: Mapping[str, Any]) -> LRLossSensitivityAnalysis:
        """Undo :meth:`dict`."""
        analysis = cls()
        for result in dictionary["results"]:
            analysis.add_result(result["lr"], result["loss_measurements"])
        return analysis

    def table(self) -> Table:
        """Return rates and average losses."""
        rows = [(str(result["lr"]), result["loss_avg"]) for result in self.results]
        return ("learning rate", "loss"), rows

    def plot(self, path: _Path | None, title: str | None = None) -> tuple[Any, Any]:
        """Draw the average losses over the rates, on a logarithmic axis, with :func:`draw`.

        :param title: ``__default__`` for ``LR Sensitivity``
        """
        points = sorted((result["lr"], result["loss_avg"]) for result in self.results)
        heading = "LR Sensitivity" if title == _DEFAULT_TITLE else title or ""

        def fill(axes: Any) -> None:
            axes.plot([lr for lr, _ in points], [loss for _, loss in points], marker=".")
            axes.set(xlabel="learning rate", ylabel="loss", xscale="log", title=heading)

        return draw(fill, path)
