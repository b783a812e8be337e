"""What is wrong with a run: one line on stderr, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from sparseml.optim.errors import RecipeError
from sparseml.pytorch.utils.files import CheckpointError

__all__ = ["RunError", "one_line", "run_reported"]

_MISTAKE = 2


class RunError(Exception):
    """Settings, data or files that a run cannot work with."""


def one_line(error: BaseException | str) -> str:
    """The text of an error, its lines joined."""
    lines = (line.strip() for line in str(error).splitlines())
    text = "; ".join(line for line in lines if line)
    return text or type(error).__name__


def run_reported(main: Callable[[], None]) -> int:
    """Call ``main``; what the user got wrong is printed in one line.

    :return: the exit status, 2 after such a mistake
    """
    try:
        main()
    except (RunError, RecipeError, CheckpointError) as error:
        rank = int(os.environ.get("RANK", "0"))
        where = f"[rank {rank}] " if rank else ""
        print(f"{where}error: {one_line(error)}", file=sys.stderr, flush=True)
        return _MISTAKE
    return 0
