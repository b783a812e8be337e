"""Sentences and their translations, from two files of text or from a table."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TextIO

from sparseml.run.errors import RunError

SPLITS = ("train", "valid", "test")
_RECORD = "prepare.json"
_TABLES = (".tsv", ".tsv.gz")


@dataclass(frozen=True)
class Prepared:
    """What a folder of a prepared corpus was made of.

    :param languages: of the sentences, and of their translations
    :param bpe: ``sentencepiece`` or ``subword-nmt``
    :param vocabulary: ``joint`` or ``separate``
    :param pairs: name of a split → how many pairs it has
    """

    languages: tuple[str, str]
    bpe: str
    vocabulary: str
    seed: int
    pairs: dict[str, int]

    def write(self, folder: Path) -> None:
        """Write it into the folder."""
        (folder / _RECORD).write_text(json.dumps(vars(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Prepared:
        """Return what a folder was made of.

        :raises RunError: if ``prepare.py`` has not made it
        """
        try:
            found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            return cls(**{**found, "languages": tuple(found["languages"])})
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(f"{folder} is no folder that prepare.py has made") from None


def read_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a text, packed by gzip or not, with single spaces between words.

    :raises RunError: for a file that is missing, or no text in UTF-8
    """
    try:
        with _opened(file) as lines:
            for line in lines:
                yield " ".join(line.split())  # no other kind of space can end a line later
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from error


def read_pairs(files: Sequence[Path], languages: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Yield sentences with their translations.

    :param files: two texts with a sentence on each line, or a table, ``.tsv`` or ``.tsv.gz``, whose
        first line names its columns
    :param languages: names of the columns
    :raises RunError: naming the file, for one that is missing or empty, a table without such
        columns or with a line of more or fewer, and texts of unequal length
    """
    if len(files) == 2:
        pairs = _texts(*files)
    elif files[0].name.endswith(_TABLES):
        pairs = _table(files[0], languages)
    else:
        raise RunError(f"{files[0]} is no .tsv: give two texts, or one table")
    none = True
    for pair in pairs:
        none = False
        yield pair
    if none:
        raise RunError(f"{' and '.join(map(str, files))}: there are 0 pairs of sentences")


def _texts(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    counts = [0, 0]
    for pair in zip_longest(read_lines(source), read_lines(target)):
        counts = [count + (line is not None) for count, line in zip(counts, pair, strict=True)]
        if counts[0] == counts[1]:
            yield pair
    if counts[0] != counts[1]:
        raise RunError(
            f"{source} has {counts[0]} lines and {target} {counts[1]}, but each line of one must "
            "be the translation of the same line of the other"
        )


def _table(file: Path, languages: tuple[str, str]) -> Iterator[tuple[str, str]]:
    try:
        with _opened(file) as lines:
            names = next(lines, "").rstrip("\r\n").split("\t")
            for language in languages:
                if language not in names:
                    raise RunError(f"{file} has no column {language!r}, only {', '.join(names)}")
            places = [names.index(language) for language in languages]
            for number, line in enumerate(lines, 2):
                cells = line.rstrip("\r\n").split("\t")
                if len(cells) != len(names):
                    raise RunError(
                        f"{file}, line {number}: {len(cells)} columns, but {len(names)} in the "
                        "first line"
                    )
                source, target = (" ".join(cells[place].split()) for place in places)
                yield source, target
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from error


def _opened(file: Path) -> TextIO:
    opener = gzip.open if file.suffix == ".gz" else open
    return opener(file, "rt", encoding="utf-8-sig", newline="\n")  # type: ignore[operator, no-any-return]


def _unreadable(file: Path, error: Exception) -> RunError:
    if isinstance(error, FileNotFoundError):
        return RunError(f"{file}: no such file")
    kind = "is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else "cannot be read"
    return RunError(f"{file} {kind}: {error}")
