"""Tables of plain text that fit the terminal, or 80 columns without one, and break no word."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence

from sparseml.utils.text import printable

_GAP = "  "
# where a word may go on in the next line: after a dot between names, and after signs between values
_BREAKS = re.compile(r"(?<=[\w\\]\.)(?=\w)|(?<=[,=/|])")


def terminal_width() -> int:
    """Return how many characters fit into a line."""
    return shutil.get_terminal_size().columns


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as text; columns of numbers are aligned to the right.

    Where it is too wide, cells go on in further lines, broken at blanks or else at dots and the
    like. A word that has neither, and does not fit, loses its middle.

    :param headings: those of numbers begin with ``>``, which is not shown
    """
    right = [heading.startswith(">") for heading in headings]
    cells = [[heading.removeprefix(">") for heading in headings]]
    cells += [[printable(cell) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True))
    widths = _widths(columns, right, terminal_width() - 1 - len(_GAP) * (len(columns) - 1))
    lines = []
    for row in cells:
        folds = [folded(cell, width) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, folds))):
            parts = [fold[number] if number < len(fold) else "" for fold in folds]
            aligned = [
                part.rjust(width) if numeric else part.ljust(width)
                for part, width, numeric in zip(parts, widths, right, strict=True)
            ]
            lines.append(f" {_GAP.join(aligned)}".rstrip())
        if row is cells[0]:
            lines.append(f" {'-' * (sum(widths) + len(_GAP) * (len(widths) - 1))}")
    return "\n".join([title, "", *lines, ""])


def _widths(columns: Sequence[Sequence[str]], whole: Sequence[bool], room: int) -> list[int]:
    """Return the widths of columns, the widest of which give way until all have room.

    As long as others can, none gets narrower than the longest of its words.

    :param whole: whether a column is to give way last
    """
    widths = [max(map(len, column)) for column in columns]
    words, pieces = (
        [
            width if last else max(len(part) for cell in column for part in split(cell))
            for column, width, last in zip(columns, widths, whole, strict=True)
        ]
        for split in (str.split, _parts)
    )
    for least in (words, pieces, [4] * len(columns)):
        while sum(widths) > room:
            spare = [width if width > low else 0 for width, low in zip(widths, least, strict=True)]
            if not any(spare):
                break
            widths[spare.index(max(spare))] -= 1
    return widths


def _parts(text: str) -> list[str]:
    return [part for word in text.split(" ") for part in _BREAKS.split(word)]


def folded(text: str, width: int) -> list[str]:
    """Return text as lines of at most ``width`` characters, at least 4."""
    lines, line = [], ""
    for word in text.split(" "):
        parts = [word] if len(word) <= width else _BREAKS.split(word)
        for number, part in enumerate(_cut(part, width) for part in parts):
            gap = " " if line and number == 0 else ""
            if len(line) + len(gap) + len(part) > width:
                lines.append(line)
                line = part
            else:
                line += f"{gap}{part}"
    return [*lines, line]


def _cut(word: str, width: int) -> str:
    """Return a word without its middle, if it is too long."""
    if len(word) <= width:
        return word
    kept = width - 3
    return f"{word[: kept - kept // 2]}...{word[len(word) - kept // 2 :]}"
