"""Folders and text files of a run; a file is whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sparseml.run.errors import RunError
from sparseml.utils.atomic import atomic_path

__all__ = ["atomic_text", "make_folder"]


@contextmanager
def atomic_text(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Give a file to write to, which takes the place of ``path`` at the end of the block.

    :raises RunError: if it cannot be written
    """
    try:
        with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it.

    :raises RunError: if that cannot be
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--output: {folder} cannot be written: {error.strerror}") from error
