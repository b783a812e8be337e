"""Files that are whole or absent, also after a crash."""

from __future__ import annotations

import glob
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STALE_SECONDS = 3600.0


def previous_path(path: str | os.PathLike[str]) -> Path:
    """Return where the file that was at ``path`` before is kept."""
    target = Path(path).expanduser()
    return target.with_name(f"{target.name}.previous")


@contextmanager
def atomic_path(path: str | os.PathLike[str], keep_previous: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to, then put the file in the place of ``path``.

    The temporary file lies in the same folder (made if missing), is synced to disk and renamed,
    so that at any moment, also after a crash or on a full disk, ``path`` is the old file or the
    new one. When the block raises, the temporary file is removed and the old file stays. Temporary
    files that killed processes have left behind an hour ago or earlier are removed.

    :param keep_previous: keep the old file at :func:`previous_path`
    """
    target = Path(path).expanduser()
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale_parts(target)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # some writers make files that none but their owner can read
        _sync(part)
        if keep_previous:
            _keep(target)
        os.replace(part, target)
    except OSError as error:
        if error.errno and error.filename in (None, str(part)):  # nobody knows of the part
            error.filename = str(target)
        raise
    finally:
        part.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(target.parent)


def _keep(target: Path) -> None:
    """Have the file also at its previous path; it stays at ``target`` where links are possible."""
    if not target.exists():
        return
    previous = previous_path(target)
    link = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        os.link(target, link)
        os.replace(link, previous)
    except OSError:  # a file system without hard links
        os.replace(target, previous)
    finally:
        link.unlink(missing_ok=True)  # two links to one file are not replaced by each other


def remove_parts(folder: Path) -> None:
    """Remove what killed processes were about to write in a folder and below it.

    Nobody may be writing there.
    """
    for part in folder.glob("**/.*.part"):
        with suppress(OSError):
            part.unlink()


def _remove_stale_parts(target: Path) -> None:
    for part in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with suppress(OSError):  # another process was quicker, or it is not ours
            if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                part.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
