"""Objects named in text, as ``module.path:attribute``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

from sparseml.utils.text import did_you_mean


def is_reference(text: str) -> bool:
    """Whether ``text`` reads ``module.path:attribute``."""
    module, separator, attribute = text.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    return bool(separator) and all(part.isidentifier() for part in parts)


def resolve_reference(text: str) -> Any:
    """Import what ``module.path:attribute`` names; modules in the current folder are found too.

    This runs the module's code: for the user's own code, named by the user.

    :raises ValueError: for text of another form, a module that cannot be imported, and an attribute
        that it does not have
    """
    if not is_reference(text):
        raise ValueError(f"{text!r} must be of the form module.path:callable")
    name, _, attribute = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{text}: no module named {error.name!r} can be imported") from error
    except Exception as error:  # the user's code may raise anything
        raise ValueError(f"{text}: importing {name} failed: {described(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, [known for known in dir(found) if known[0] != "_"])
            raise ValueError(f"{text}: {name} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def described(error: BaseException) -> str:
    """Return an error in one line, with the place in the code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    first = str(error).strip().partition("\n")[0]
    return f"{place}{type(error).__name__}{f': {first}' if first else ''}"
