"""Paths and folders, and telling files apart."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_CHUNK = 1 << 22


def clean_path(path: str | os.PathLike[str]) -> str:
    """Return an absolute path, with ``~`` replaced by the home folder."""
    return os.path.abspath(os.path.expanduser(path))


def create_dirs(path: str | os.PathLike[str]) -> None:
    """Create a folder and those above it, unless they exist."""
    os.makedirs(clean_path(path), exist_ok=True)


def create_parent_dirs(path: str | os.PathLike[str]) -> None:
    """Create the folder that a file is to be written into, unless it exists."""
    create_dirs(os.path.dirname(clean_path(path)))


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
