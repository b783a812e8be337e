"""Where the text of a recipe comes from."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import Any

from sparseml.optim.errors import (
    RecipeError,
    RecipeFileNotFoundError,
    RecipeRuntimeError,
    RecipeValueError,
)
from sparseml.optim.language.yaml_text import MAX_CHARACTERS
from sparseml.utils.ready_recipes import READY_PREFIX, ready_recipes
from sparseml.utils.text import did_you_mean, shortened, shown

# a character of UTF-8 has four bytes at most
MAX_BYTES = 4 * MAX_CHARACTERS
_LONGEST_PATH = 4096  # what Linux allows; more must have been meant as something else
_EXTENSIONS = ("yaml", "yml", "md")
_DELIMITERS = ("---", "+++")


@dataclass(frozen=True)
class RecipeSource:
    """The text of a recipe.

    :param file: the path of the file, None for raw text
    :param first_line: the line of the file at which the text begins, counted from 1
    """

    text: str
    file: str | None = None
    first_line: int = 1


def _front_matter(text: str, file: str | None) -> RecipeSource | None:
    """Return what stands between the first two delimiters, whatever comes before them."""
    lines = re.split(r"\r\n|\r|\n", text)
    marks = [(n, mark) for n, line in enumerate(lines) if (mark := line.strip()) in _DELIMITERS]
    kinds = [[n for n, mark in marks if mark == kind][:2] for kind in _DELIMITERS]
    begin, end = min((pair for pair in kinds if len(pair) == 2), default=(-1, -1))
    if end < 0:
        return None
    inner = "\n".join(lines[begin + 1 : end])
    return RecipeSource(f"{inner}\n", file, first_line=begin + 2)


def _extension(path: str) -> str:
    return os.path.splitext(f"_{path}")[1][1:].lower()


def _recipes_in(folder: str) -> list[str]:
    """Return the names of the recipes in a folder; none if it cannot be looked into."""
    try:
        return sorted(name for name in os.listdir(folder or ".") if _extension(name) in _EXTENSIONS)
    except (OSError, ValueError):
        return []


def _near(path: str) -> str:
    """Return the tail of a message about a path that does not exist: what is there instead."""
    folder, name = os.path.split(path)
    ready = os.path.splitext(path)[0].removeprefix("recipes/")
    if ready in ready_recipes():
        return f"; did you mean '{READY_PREFIX}{ready}'?"
    if folder and not os.path.isdir(folder):
        return f"; there is no folder {shown(folder)}"
    return did_you_mean(name, _recipes_in(folder))


def _no_recipe(path: str) -> RecipeValueError:
    """Return the error about one line of text that cannot be the path of a recipe."""
    must = "a recipe must be the path of a .yaml, .yml or .md file"
    if len(path) > _LONGEST_PATH or re.search(r"[!{]|:\s|://|^$", path):
        message = f"{must}, or text of several lines; found {shortened(path, 200)}"
        return RecipeValueError(message, found=path)
    if os.path.isdir(path):
        names = _recipes_in(path)
        inside = f"one in it is {shown(names[0])}" if names else "there is none in it"
        problem = f"this is a folder; {must}, {inside}"
    elif os.path.exists(path):
        problem = must
    else:
        problem = f"{must}, and there is no such file{_near(path)}"
    return RecipeValueError(problem, file=path, found=path)


def _read_text(path: str) -> str:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise RecipeValueError("a recipe must be a file; this is a folder or device", file=path)
        if status.st_size > MAX_BYTES:
            size = f"{status.st_size} bytes, at most {MAX_BYTES} are allowed"
            raise RecipeValueError(f"the file is too large for a recipe: {size}", file=path)
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except FileNotFoundError as err:
        raise RecipeFileNotFoundError(f"the recipe does not exist{_near(path)}", file=path) from err
    except UnicodeDecodeError as err:
        fault = f"the file is not text in UTF-8: {err.reason} at byte {err.start}"
        raise RecipeValueError(fault, file=path) from err
    except (OSError, ValueError) as err:
        if isinstance(err, RecipeError):
            raise
        raise RecipeRuntimeError(f"the recipe cannot be read: {err}", file=path) from err
    return text


def _ready(name: str) -> str:
    ready = ready_recipes()
    found = ready.get(name.removesuffix(".yaml"))
    if found is None:
        raise RecipeFileNotFoundError(
            "no such recipe comes with sparseml (`sparseml recipe list` names them)"
            f"{did_you_mean(name, ready)}",
            file=f"{READY_PREFIX}{name}",
        )
    return str(found)


def _read_file(path: str) -> RecipeSource:
    if path.startswith(READY_PREFIX):
        path = _ready(path.removeprefix(READY_PREFIX))
    if path.startswith("zoo:"):
        raise RecipeValueError(
            f"{shown(path)} names a recipe of the model zoo, which was shut down; give the path of "
            "a local .yaml or .md file, or the recipe's text",
            found=path,
        )
    extension = _extension(path)
    path = os.path.expanduser(path)
    if extension not in _EXTENSIONS or len(path) > _LONGEST_PATH:
        raise _no_recipe(path)
    text = _read_text(path)
    if extension != "md":
        return RecipeSource(text, path)
    source = _front_matter(text, path)
    if source is None:
        raise RecipeRuntimeError(
            "the file has no recipe: it needs lines of YAML between two lines '---' (or '+++')",
            file=path,
        )
    return source


def read_source(file_path: Any) -> RecipeSource:
    """The text of a recipe given in one of several ways.

    A string with a line break is the recipe itself; if two of its lines are ``---`` or ``+++``,
    only what stands between them is used. Any other string, or path object, is the path of a
    ``.yaml`` or ``.yml`` file, or of a ``.md`` file with the recipe between two such lines,
    whatever comes before; or it is ``recipe:`` and the name of a recipe that comes with the
    package.

    :raises RecipeValueError: if it is neither, names a recipe of the model zoo, or the file is too
        large or no text
    :raises RecipeFileNotFoundError: if the file does not exist
    :raises RecipeRuntimeError: if a ``.md`` file has no such lines, or reading fails
    """
    if isinstance(file_path, os.PathLike):
        file_path = os.fspath(file_path)
        if isinstance(file_path, str):
            return _read_file(file_path)
    if not isinstance(file_path, str):
        kind = type(file_path).__name__
        raise RecipeValueError(f"a recipe must be text or a path, found {kind}", found=file_path)
    if "\n" not in file_path and "\r" not in file_path:
        return _read_file(file_path)
    if len(file_path) > MAX_CHARACTERS:
        return RecipeSource(file_path)  # refused when parsed
    return _front_matter(file_path, None) or RecipeSource(file_path)
