"""New folders, sizes of files, and what is installed."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import itertools
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

from sparseml.utils.paths import clean_path, create_parent_dirs

__all__ = [
    "create_unique_dir",
    "is_package_available",
    "is_url",
    "path_file_count",
    "path_file_size",
]


def create_unique_dir(path: str | os.PathLike[str], check_number: int = 0) -> str:
    """Create the first of ``path-0000``, ``path-0001``, ... that does not exist; return its path.

    :param check_number: the first number to try
    """
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
    """Return whether a package can be imported; it is not imported, only looked for.

    :param return_version: also return its version, ``"N/A"`` where it has none
    """
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
