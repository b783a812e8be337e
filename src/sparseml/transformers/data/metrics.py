"""GLUE's metrics, computed by scikit-learn and SciPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy

from sparseml.run.session import Found, Metric
from sparseml.transformers.data.tasks import TextTask

__all__ = ["metrics_of", "score"]

_Array = Any


def score(task: TextTask, outputs: _Array, labels: _Array) -> Found:
    """Return how well outputs answer a task: metric → value.

    Correlations of what does not vary are 0.

    :param outputs: of the model, ``[examples, classes]``; ``[examples, 1]`` for regression
    :param labels: ``[examples]``, numbers of classes in the order of the outputs, or numbers
    """
    outputs, labels = numpy.asarray(outputs, dtype=float), numpy.asarray(labels)
    answers = outputs.reshape(len(outputs)) if task.is_regression else outputs.argmax(axis=1)
    return {name: float(_METRICS[name](labels, answers)) for name in task.metrics}


def metrics_of(task: TextTask) -> tuple[Metric, ...]:
    """Return what a run tells of a task's metrics, and of the loss."""
    fractions = ("accuracy", "f1")
    told = [Metric(name, f"val/{name}", percent=name in fractions) for name in task.metrics]
    return (*told, Metric("loss", "val/loss", percent=False))


def _accuracy(labels: _Array, answers: _Array) -> float:
    return float((labels == answers).mean())


def _f1(labels: _Array, answers: _Array) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, answers, zero_division=0.0))


def _matthews(labels: _Array, answers: _Array) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, answers))


def _correlation(name: str) -> Callable[[_Array, _Array], float]:
    def correlation(labels: _Array, answers: _Array) -> float:
        from scipy import stats

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            found = getattr(stats, name)(labels, answers)[0]
        return float(numpy.nan_to_num(found))

    return correlation


_METRICS: dict[str, Callable[[_Array, _Array], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews_correlation": _matthews,
    "pearson": _correlation("pearsonr"),
    "spearmanr": _correlation("spearmanr"),
}
