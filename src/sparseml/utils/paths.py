"""Paths and folders."""

from __future__ import annotations

import os


def clean_path(path: str | os.PathLike[str]) -> str:
    """Return an absolute path, with ``~`` replaced by the home folder."""
    return os.path.abspath(os.path.expanduser(path))


def create_dirs(path: str | os.PathLike[str]) -> None:
    """Create a folder and those above it, unless they exist."""
    os.makedirs(clean_path(path), exist_ok=True)


def create_parent_dirs(path: str | os.PathLike[str]) -> None:
    """Create the folder that a file is to be written into, unless it exists."""
    create_dirs(os.path.dirname(clean_path(path)))
