"""Mistakes of the user: one line on stderr and exit code 2, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from sparseml.utils.text import printable


class Problem(click.ClickException):
    """What is wrong with the user's input.

    :param message: one line; of several, the breaks become semicolons
    :param details: more for machines, as ``--json`` prints it
    """

    exit_code = 2

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__("; ".join(line.strip() for line in message.splitlines() if line.strip()))
        self.details = {"message": self.message, **details}
        self.as_json = False

    def show(self, file: Any = None) -> None:
        """Print the line; with ``--json`` also an object on stdout, for who reads only that."""
        if self.as_json:
            click.echo(json.dumps({"valid": False, "error": self.details}, default=str))
        click.echo(printable(self.message), err=True)


@contextmanager
def reported(as_json: bool = False) -> Iterator[None]:
    """Turn errors of recipes within the block into problems, and tell all how to be shown."""
    from sparseml.optim.errors import RecipeError

    try:
        yield
    except Problem as problem:
        problem.as_json = as_json
        raise
    except RecipeError as error:
        place = {name: getattr(error, name) for name in ("file", "line", "column", "key")}
        told = Problem(str(error), kind=type(error).__name__, **place)
        told.as_json = as_json
        raise told from error
