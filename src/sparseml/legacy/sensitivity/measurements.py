"""Measurements of one layer, and what all collections of measurements can do."""

from __future__ import annotations

import json
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparseml.legacy.helpers.iterables import interpolated_integral
from sparseml.legacy.helpers.json_text import read_json_text, write_json_text
from sparseml.utils.paths import clean_path, create_parent_dirs

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
"""Column titles, and rows of a name and numbers."""

COMPARED = 0.9
"""The sparsity that is compared with the dense layer."""
_Plain = dict[str, Any]
_Path = str | os.PathLike[str]


class NoResultError(ValueError, KeyError):
    """Nothing was measured of what was asked for."""

    __str__ = Exception.__str__  # a KeyError would put its message in quotes


class Analysis(ABC):
    """Measurements; subclasses say what they are."""

    @abstractmethod
    def dict(self) -> _Plain:
        """Return all of it as plain data."""

    @classmethod
    @abstractmethod
    def from_dict(cls, dictionary: Mapping[str, Any]) -> Any:
        """Undo :meth:`dict`."""

    @abstractmethod
    def table(self) -> Table:
        """Return a summary."""

    def save_json(self, path: _Path) -> None:
        """Write the measurements; folders are made as needed, ``.json`` is appended if missing."""
        name = os.fspath(path)
        name = name if name.endswith(".json") else f"{name}.json"
        write_json_text(json.dumps(self.dict(), indent=2), name)

    @classmethod
    def load_json(cls, path: str) -> Any:
        """Read what :meth:`save_json`, here or in SparseML 1.x, has written."""
        return cls.from_dict(json.loads(read_json_text(path)))

    def print_res(self) -> None:
        """Print the summary."""
        titles, rows = self.table()
        cells = [list(titles), *([_cell(value) for value in row] for row in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
        for name, *numbers in cells:
            padded = map(str.rjust, numbers, widths[1:])
            print("  ".join([name.ljust(widths[0]), *padded]))


def draw(fill: Callable[[Any], None], path: _Path | None, height: float = 5.0) -> tuple[Any, Any]:
    """Draw a picture and save or show it; needs matplotlib.

    :param fill: called with the ``matplotlib.axes.Axes``
    :param path: where to save the picture, as PNG without an ending; folders are made as needed.
        None to show it
    :param height: of the picture in inches
    :return: ``(None, None)`` if it was saved, otherwise figure and axes
    :raises ImportError: without matplotlib
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plotting needs matplotlib: pip install matplotlib") from error
    shape: dict[str, Any] = {"figsize": (8.0, height), "layout": "constrained"}
    if path is not None:
        figure = Figure(**shape)
        fill(figure.add_subplot())
        file = clean_path(path)
        create_parent_dirs(file)
        figure.savefig(file, format=None if os.path.splitext(file)[1] else "png")
        return None, None
    from matplotlib import pyplot

    shown, axes = pyplot.subplots(**shape)
    fill(axes)
    with warnings.catch_warnings():
        # there is nothing to be shown on without a display
        warnings.filterwarnings("ignore", ".*non-interactive", UserWarning)
        pyplot.show()
    return shown, axes


def draw_bars(
    bars: Mapping[str, float], path: _Path | None, title: str | None, label: str
) -> tuple[Any, Any]:
    """Draw a horizontal bar for each number, the first at the top, by :func:`draw`."""

    def fill(axes: Any) -> None:
        places = range(len(bars))
        axes.barh(places, list(bars.values()))
        axes.set_yticks(places, labels=list(bars))
        axes.invert_yaxis()
        axes.set(xlabel=label, title=title or "")

    return draw(fill, path, height=1.5 + 0.25 * len(bars))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def mean(values: Sequence[float]) -> float:
    """Return the mean of numbers; 0 for none."""
    return math.fsum(values) / len(values) if values else 0.0


@dataclass(frozen=True, eq=False, repr=False)
class PruningSensitivityResult:
    """Measurements of one layer, or of the whole model, at several sparsities.

    :param id_: identifies what was pruned, None for nothing but its name
    :param name: name of what was pruned
    :param index: its position in the model
    :param baseline_measurement_index: which of the sparsities, in the order in which they were
        added, counts as dense; -1 for none
    :param baseline_measurement_key: that sparsity; None for none
    :param sparse_measurements: sparsity → measured values, as a mapping or pairs; kept as a mapping
        in the order added
    """

    id_: Any
    name: str
    index: int
    baseline_measurement_index: int = -1
    baseline_measurement_key: float | None = None
    sparse_measurements: Any = None

    def __post_init__(self) -> None:
        measured = OrderedDict(self.sparse_measurements or {}).items()
        kept = OrderedDict((float(key), list(map(float, values))) for key, values in measured)
        vars(self).update(sparse_measurements=kept)

    def __repr__(self) -> str:
        averages = dict(self.averages)
        return f"{type(self).__name__}({self.id_!r}, {self.name!r}, {self.index}, {averages})"

    def add_measurement(self, sparsity: float, loss: float, baseline: bool) -> None:
        """Add a value; the first of a sparsity can make it the baseline of all the others."""
        key, measured = float(sparsity), self.sparse_measurements
        if baseline and key not in measured:
            place = {"baseline_measurement_index": len(measured), "baseline_measurement_key": key}
            vars(self).update(place)
        measured.setdefault(key, []).append(float(loss))

    @property
    def averages(self) -> OrderedDict[float, float]:
        """Sparsity → mean of the measured values, in the order added."""
        return OrderedDict((s, mean(values)) for s, values in self.sparse_measurements.items())

    @property
    def has_baseline(self) -> bool:
        """Whether there is something to compare with."""
        return self.baseline_measurement_index > -1

    @property
    def baseline_average(self) -> float:
        """The mean of the values to compare with; a ValueError if there are none."""
        if not self.has_baseline:
            raise ValueError(f"no baseline was measured for {self.name}")
        return list(self.averages.values())[self.baseline_measurement_index]

    @property
    def sparse_average(self) -> float:
        """The mean of all sparsities and all averages together, as in SparseML 1.x; 0 for none.

        It only serves to compare layers that were measured at the same sparsities.
        """
        return mean([number for pair in self.averages.items() for number in pair])

    @property
    def sparse_integral(self) -> float:
        """The area under the averages over sparsity, by the trapezoid rule."""
        return interpolated_integral(list(self.averages.items()))

    def sparse_comparison(self, compare_index: int = -1) -> float:
        """Return how far an average is above the baseline's, or above the first without a baseline.

        :param compare_index: which one, in the order in which the sparsities were added; negative
            for the one whose sparsity is nearest to 0.9
        :return: the difference; 0 for fewer than two sparsities
        """
        averages = self.averages
        if len(averages) < 2:
            return 0.0
        values = list(averages.values())
        if compare_index < 0:
            distances = [abs(sparsity - COMPARED) for sparsity in averages]
            compare_index = distances.index(min(distances))
        return values[compare_index] - values[max(self.baseline_measurement_index, 0)]

    def dict(self) -> _Plain:
        """Return measurements and what follows from them as plain data."""
        measured = self.sparse_measurements.items()
        return {
            "id": self.id_,
            "name": self.name,
            "index": self.index,
            "baseline_measurement_index": self.baseline_measurement_index,
            "has_baseline": self.has_baseline,
            "baseline_measurement_key": self.baseline_measurement_key,
            "sparse_measurements": [[sparsity, list(values)] for sparsity, values in measured],
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
