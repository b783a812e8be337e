"""What is wrong with a run: one line on stderr, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence

_MISTAKE = 2
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class RunError(Exception):
    """Settings, data or files that a run cannot work with."""


def one_line(error: BaseException | str) -> str:
    """Return the text of an error, its lines joined."""
    lines = (line.strip() for line in str(error).splitlines())
    text = "; ".join(line for line in lines if line)
    return text or type(error).__name__


def few(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def run_reported(main: Callable[[], None]) -> int:
    """Call ``main``; what the user got wrong, and a full disk, is told in one line.

    :return: the exit status, 2 after such a mistake
    """
    try:
        main()
    except Exception as error:
        reason = one_line(error) if _is_mistake(error) else _no_room(error)
        if reason is None:
            raise
        rank = int(os.environ.get("RANK", "0"))
        where = f"[rank {rank}] " if rank else ""
        print(f"{where}error: {reason}", file=sys.stderr, flush=True)
        return _MISTAKE
    return 0


def _is_mistake(error: Exception) -> bool:
    if isinstance(error, RunError):
        return True
    # here, as torch takes a while to import
    from sparseml.optim.errors import RecipeError
    from sparseml.pytorch.utils.saving.files import CheckpointError
    from sparseml.utils.locks import FolderInUseError

    return isinstance(error, (RecipeError, CheckpointError, FolderInUseError))


def _no_room(error: Exception) -> str | None:
    """Return what to tell of a disk that takes nothing more; None for any other error."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        file = f"{error.filename} " if error.filename else "the results "
        return f"{file}cannot be written: {error.strerror}"
    # torch and safetensors raise errors of their own
    if os.strerror(errno.ENOSPC) in str(error):
        return f"the results cannot be written: {one_line(error)}"
    return None
