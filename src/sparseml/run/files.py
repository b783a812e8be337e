"""Folders and text files of a run; a file is whole or absent."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from sparseml.run.errors import RunError
from sparseml.utils.atomic import atomic_path
from sparseml.utils.locks import FolderLock


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


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a CSV of rows, under the keys of the last as heads.

    :raises RunError: if it cannot be written
    """
    with atomic_text(path) as file:
        writer = csv.DictWriter(file, list(rows[-1]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it.

    :raises RunError: if that cannot be
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--output: {folder} cannot be written: {error.strerror}") from error


def require_room_for_run(folder: Path, overwrite: bool) -> None:
    """Check, before anything is loaded, that a run can go into a folder.

    :raises RunError: if it cannot be written, or holds a run that is not to be replaced
    :raises FolderInUseError: if another process writes such a run
    """
    above = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    problem = 0 if os.access(above, os.W_OK | os.X_OK) else errno.EACCES
    problem = problem if above.is_dir() else errno.ENOTDIR
    if problem:
        raise RunError(f"--output: {folder} cannot be written: {os.strerror(problem)}")
    if overwrite:
        return
    if (folder / "results.json").exists():
        raise RunError(f"{folder} holds results: give --overwrite or another --experiment")
    if (folder / "run.json").exists():
        raise holds_run(folder)


def holds_run(folder: Path) -> RunError:
    """Return the error for a folder with a run that is not to be replaced.

    :raises FolderInUseError: if that run still goes on, so that it cannot be replaced either
    """
    from sparseml.run.checkpoints import last_checkpoints  # here, as torch takes a while to import

    FolderLock(folder).release()
    if not last_checkpoints(folder):
        return RunError(
            f"{folder} holds a run without a checkpoint: give --overwrite to replace it, or "
            "another --experiment"
        )
    return RunError(
        f"{folder} holds a run: give --resume {folder} to go on with it, --overwrite to replace "
        "it, or another --experiment"
    )
