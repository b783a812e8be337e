"""One process at a time writes into a folder."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

from sparseml.utils.atomic import remove_parts

__all__ = ["FolderInUseError", "FolderLock"]


class FolderInUseError(RuntimeError):
    """A folder that another process is writing into."""


class FolderLock:
    """The right to write into a folder, from now until :meth:`release` or the end of the process.

    The system frees it when its process ends in whatever way; a process may hold it several times.
    What a process that was killed was about to write in the folder is removed.

    :param folder: made if it is missing
    :raises FolderInUseError: if another process holds it
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path / ".lock", timeout=0, is_singleton=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise FolderInUseError(
                f"another process is writing into {path}: wait for its end, or give another folder"
            ) from error
        remove_parts(path)

    def release(self) -> None:
        """Let others write."""
        self._lock.release()
