"""What all collections of measurements can do: be saved, printed and plotted."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from sparseml.legacy.helpers.json_text import read_json_text, write_json_text
from sparseml.utils.paths import clean_path, create_parent_dirs

__all__ = ["Analysis", "Table"]

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
"""Column titles, and rows of a name and numbers."""

_MOST_IN_LEGEND = 12


class Analysis(ABC):
    """Measurements; subclasses say what they are."""

    x_label: str
    x_scale = "linear"

    @property
    @abstractmethod
    def y_label(self) -> str:
        """What was measured."""

    @abstractmethod
    def dict(self) -> Any:
        """Return all of it as plain data."""

    @classmethod
    @abstractmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Any:
        """Undo :meth:`dict`."""

    @abstractmethod
    def table(self) -> Table:
        """Return a summary."""

    @abstractmethod
    def curves(self) -> Mapping[str, Mapping[float, float]]:
        """Return the averages to plot, by the name of their curve."""

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Write the measurements; folders are made as needed."""
        write_json_text(json.dumps(self.dict(), indent=2), path)

    @classmethod
    def load_json(cls, path: str) -> Any:
        """
        Read what :meth:`save_json` has written.

        :raises FileNotFoundError: if there is no such file
        """
        return cls.from_dict(json.loads(read_json_text(path)))

    def print_res(self) -> None:
        """Print the summary."""
        titles, rows = self.table()
        cells = [list(titles), *([_cell(value) for value in row] for row in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
        for name, *numbers in cells:
            padded = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
            print("  ".join([name.ljust(widths[0]), *padded]))

    def plot(self, path: str | os.PathLike[str] | None = None, title: str | None = None) -> Any:
        """
        Draw the averages; needs matplotlib.

        :param path: where to save the picture, as ``sensitivity.png``; folders are made as needed
        :return: the ``matplotlib.figure.Figure``
        :raises ImportError: without matplotlib
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plotting needs matplotlib: pip install matplotlib") from error
        figure = Figure(figsize=(8.0, 5.0), layout="constrained")
        axes = figure.add_subplot()
        curves = self.curves()
        for name, values in curves.items():
            axes.plot(list(values), list(values.values()), marker=".", label=name)
        axes.set(xlabel=self.x_label, ylabel=self.y_label, xscale=self.x_scale, title=title or "")
        if 1 < len(curves) <= _MOST_IN_LEGEND:
            axes.legend(fontsize="small")
        if path is not None:
            create_parent_dirs(path)
            figure.savefig(clean_path(path))
        return figure


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
