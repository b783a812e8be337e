"""What all collections of measurements can do: be saved, printed and plotted."""

from __future__ import annotations

import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparseml.legacy.helpers.json_text import read_json_text, write_json_text
from sparseml.utils.paths import clean_path, create_parent_dirs

__all__ = ["Analysis", "NoResultError", "Table", "draw", "draw_bars"]

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
"""Column titles, and rows of a name and numbers."""

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
