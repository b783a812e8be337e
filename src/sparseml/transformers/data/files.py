"""Tables of texts in files: TSV, CSV, JSON and Parquet, packed with gzip or not."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparseml.run.errors import RunError, few, one_line
from sparseml.utils.plain import json_of

__all__ = ["find_splits", "read_table"]

_KINDS = ("tsv", "csv", "json", "jsonl", "parquet")
_NAMES = {
    "train": ("train",),
    "validation": ("validation", "dev", "valid", "val"),
    "validation_matched": ("validation_matched", "dev_matched"),
    "validation_mismatched": ("validation_mismatched", "dev_mismatched"),
    "test": ("test",),
}


def find_splits(folder: Path, wanted: Sequence[str]) -> dict[str, Path]:
    """Return split → its file in a folder, which is named after it: ``train.tsv``, ``dev.csv.gz``.

    :param wanted: splits to look for; the one for validation may be called ``dev``, too
    :raises RunError: if there is no folder, or not exactly one file for a split
    """
    if not folder.is_dir():
        raise RunError(
            f"--data-dir {folder}: {'no folder' if folder.exists() else 'no such folder'}"
        )
    found: dict[str, Path] = {}
    for split in wanted:
        stems = _NAMES.get(split, (split,))
        files = [file for file in sorted(folder.iterdir()) if file.name.split(".")[0] in stems]
        files = [file for file in files if _kind(file) in _KINDS]
        if len(files) != 1:
            names = few([file.name for file in files or sorted(folder.iterdir())], 6)
            what = "several files for it" if files else f"none called {' or '.join(stems)}"
            raise RunError(
                f"--data-dir {folder}: {split} must be one file .{', .'.join(_KINDS)} (.gz), "
                f"found {what}: {names}"
            )
        found[split] = files[0]
    return found


def read_table(path: Path) -> dict[str, list[Any]]:
    """Return column → its values; those of TSV and CSV are text, unquoted in TSV as in GLUE's.

    :raises RunError: if the file cannot be read, holds no rows or is of another kind
    """
    kind = _kind(path)
    if kind not in _KINDS:
        raise RunError(f"{path} must be a file .{', .'.join(_KINDS)}, packed (.gz) or not")
    if not path.is_file():
        raise RunError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
    try:
        if kind == "parquet":
            table = _parquet(path)
        elif kind in ("tsv", "csv"):
            table = _separated(path, kind == "tsv")
        else:
            table = _objects(path)
    except (OSError, ValueError, KeyError) as error:  # those of pandas and pyarrow are such
        raise RunError(f"{path} cannot be read as {kind.upper()}: {one_line(error)}") from error
    if not table or not next(iter(table.values())):
        raise RunError(f"{path} holds no rows")
    return table


def _kind(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[2].lower()


def _separated(path: Path, tabs: bool) -> dict[str, list[Any]]:
    import pandas

    quoting: Any = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    separator = "\t" if tabs else ","
    try:
        frame = pandas.read_csv(
            path, sep=separator, quoting=quoting, keep_default_na=False, dtype=str, index_col=False
        )
    except pandas.errors.EmptyDataError:
        return {}
    return {str(name): frame[name].tolist() for name in frame.columns}


def _parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet as parquet

    table: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    return table


def _objects(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a JSON list of objects, or of an object on each line."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = data.decode("utf-8").strip()
    rows = json_of(text) if text.startswith("[") else list(map(json_of, text.splitlines()))
    if len(rows) == 1 and isinstance(rows[0], dict) and isinstance(rows[0].get("data"), list):
        rows = rows[0]["data"]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("it must hold a list of objects, or one object a line")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row[name] for row in rows] for name in names}
