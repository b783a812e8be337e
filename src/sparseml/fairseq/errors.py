"""What is wrong with a run of fairseq, told in one line."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from sparseml.run.errors import RunError, mistakes_told

_P = ParamSpec("_P")
_R = TypeVar("_R")


class FairseqError(RunError, ValueError):
    """A recipe, model, checkpoint or setting that a run of fairseq cannot work with."""


def require_fairseq() -> None:
    """Check that there is a fairseq.

    :raises FairseqError: saying which distribution of it this Python can take
    """
    if importlib.util.find_spec("fairseq") is not None:
        return
    raise FairseqError(
        f"fairseq is not installed in Python {platform.python_version()}: pip install "
        "'sparseml-next[fairseq]' on Python 3.11 or 3.12, for which ve-fairseq has it; any other "
        "distribution of a module fairseq does as well"
    )


def reported(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return a function that ends the process after a mistake of the user, told in one line.

    It raises SystemExit, which fairseq and the processes that it starts let pass.
    """

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        results: list[_R] = []
        status = mistakes_told(lambda: results.append(function(*args, **kwargs)))
        if status:
            raise SystemExit(status)
        return results[0]

    return call
