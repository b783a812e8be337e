"""Samples and labels from files, new folders, what is installed, and the like of SparseML 1.x."""

from __future__ import annotations

import fnmatch
import glob
import importlib.metadata
import importlib.util
import itertools
import json
import logging
import os
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import sparseml
from sparseml.legacy.export.arrays import load_numpy
from sparseml.utils.paths import clean_path, create_parent_dirs

_LOGGER = logging.getLogger(__name__)

NDARRAY_KEY = "ndarray"
"""What an array without a name of its own is called."""
ROOT_PATH = str(Path(sparseml.__file__).parent)
"""The folder of this package."""


def _listed(source: Any) -> list[Any]:
    if not isinstance(source, (str, os.PathLike)):
        return list(source)
    path = clean_path(source)
    return sorted(glob.glob(os.path.join(path, "*") if os.path.isdir(path) else path))


def _read(value: Any) -> Any:
    return load_numpy(value) if isinstance(value, (str, os.PathLike)) else value


def load_labeled_data(
    data: str | Iterable[Any],
    labels: str | Iterable[Any] | None,
    raise_on_error: bool = True,
) -> list[tuple[Any, Any]]:
    """Return pairs of a sample and its label, matched by their order.

    :param data: a folder or a pattern of ``.npy`` and ``.npz`` files, which are taken in the order
        of their names; or an iterable of paths of such files and of samples
    :param labels: the same for the labels; None for none, and pairs with None
    :param raise_on_error: raise if a file cannot be read; otherwise leave that sample out, and log
    :raises ValueError: for as many labels as there are not samples
    """
    samples = _listed(data)
    marks = [None] * len(samples) if labels is None else _listed(labels)
    if len(samples) != len(marks):
        raise ValueError(f"{len(samples)} samples, but {len(marks)} labels")
    pairs = []
    for pair in zip(samples, marks, strict=True):
        try:
            pairs.append((_read(pair[0]), _read(pair[1])))
        except (OSError, ValueError) as error:  # noqa: PERF203 - each file for itself
            if raise_on_error:
                raise
            _LOGGER.warning("left out %s: %s", pair, error)
    return pairs


def parse_optimization_str(optim_full_name: str) -> tuple[str, str, Any]:
    """Return name, category and target of ``a-b-c``; ``base``, ``none`` and None where missing."""
    parts = [part for part in optim_full_name.split("-", 2) if part]
    name, category, target = parts + ["base", "none", ""][len(parts) :]
    return name, category, target or None


def json_to_jsonl(json_file_path: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write the objects in the list (else a ValueError) of a JSON file one per line.

    :param overwrite: replace the file; otherwise write beside it, with the ending ``.jsonl``
    """
    source = Path(clean_path(json_file_path))
    items = json.loads(source.read_text(encoding="utf-8"))
    if not isinstance(items, list):
        raise ValueError(f"{source} must hold a list, found {type(items).__name__}")
    text = "".join(f"{json.dumps(item)}\n" for item in items)
    (source if overwrite else source.with_suffix(".jsonl")).write_text(text, encoding="utf-8")


def deprecation_warning(message: str) -> None:
    """Warn the caller's caller of something that will go."""
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def create_unique_dir(path: str | os.PathLike[str], check_number: int = 0) -> str:
    """Create the first of ``path-0000``, ... from ``check_number`` that is not there; return it."""
    create_parent_dirs(path)
    for number in itertools.count(check_number):
        unique = f"{clean_path(path)}-{number:04d}"
        with suppress(FileExistsError):
            os.mkdir(unique)
            break
    return unique


def path_file_count(path: str | os.PathLike[str], pattern: str = "*") -> int:
    """Return how many entries of a folder match a shell pattern."""
    return len(fnmatch.filter(os.listdir(clean_path(path)), pattern))


def path_file_size(path: str | os.PathLike[str]) -> int:
    """Return the size in bytes of a file, or of all files below a folder."""
    top = Path(clean_path(path))
    files = top.rglob("*") if top.is_dir() else [top]
    return sum(file.stat().st_size for file in files if file.is_file() or file is top)


def is_url(val: str) -> bool:
    """Whether a text is a URL with a scheme and a host."""
    try:
        parts = urlparse(val)
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc)


def is_package_available(
    package_name: str, return_version: bool = False
) -> bool | tuple[bool, str]:
    """Whether a package is there to be imported, and, if asked for, its version or ``"N/A"``."""
    try:
        available = importlib.util.find_spec(package_name) is not None
    except (ModuleNotFoundError, ValueError):
        available = False
    if not return_version:
        return available
    try:
        return available, importlib.metadata.version(package_name) if available else "N/A"
    except importlib.metadata.PackageNotFoundError:
        return available, "N/A"
