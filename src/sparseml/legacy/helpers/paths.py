"""New folders, sizes of files, and what is installed."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import os
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
    """
    Create a folder that did not exist: ``path-0000``, ``path-0001`` and so on.

    :param path: the folder's path without the number
    :param check_number: the first number to try
    :return: the path of the new folder
    """
    create_parent_dirs(path)
    while True:
        unique = f"{clean_path(path)}-{check_number:04d}"
        try:
            os.mkdir(unique)
            return unique
        except FileExistsError:
            check_number += 1


def path_file_count(path: str | os.PathLike[str], pattern: str = "*") -> int:
    """Return how many entries of a folder match a shell pattern."""
    return len(fnmatch.filter(os.listdir(clean_path(path)), pattern))


def path_file_size(path: str | os.PathLike[str]) -> int:
    """Return the size in bytes of a file, or of all files below a folder."""
    path = clean_path(path)
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
        if os.path.isfile(os.path.join(folder, name))
    )


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
