"""How large the pieces of the package may be, and how they describe themselves."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

MOST_CLASSES = 10  # in a method resolution order
MOST_FILES = 20  # in a folder
MOST_LINES = 400  # in a file
MOST_FUNCTION_LINES = 60
FEWEST_LINES = 40  # in a file that only one other file imports
OLD_PATH = "Old path:"
"""How the docstring begins of a file that is only there for the sake of old imports."""
BAD_BEGINNINGS = ("Adds", "Restores", "As of", "As in", "See the base class")

Function = (ast.FunctionDef, ast.AsyncFunctionDef)
Described = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _listed(found: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in sorted(found.items()))


def _classes(names: list[str]) -> Iterator[type]:
    """Yield the classes of all modules that can be imported here."""
    for name in names:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            if (error.name or "").startswith("sparseml"):
                raise
            continue  # of an optional package
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == name:
                yield value


@pytest.mark.filterwarnings("ignore")  # of optional packages, as they are imported
def test_inheritance_is_shallow(source_files: Mapping[str, Any]) -> None:
    deep = {}
    for found in _classes(list(source_files)):
        own = [c.__name__ for c in found.__mro__ if c.__module__.startswith("sparseml")]
        if len(own) > MOST_CLASSES:
            deep[found.__qualname__] = own
    assert not deep, _listed(deep)


def test_folders_are_not_flat(source_files: Mapping[str, Any]) -> None:
    sizes = Counter(str(file.path.parent) for file in source_files.values())
    flat = {folder: size for folder, size in sizes.items() if size > MOST_FILES}
    assert not flat, _listed(flat)


def test_files_are_short(source_files: Mapping[str, Any]) -> None:
    lengths = {name: len(file.text.splitlines()) for name, file in source_files.items()}
    long = {name: length for name, length in lengths.items() if length > MOST_LINES}
    assert not long, _listed(long)


def test_functions_are_short(source_files: Mapping[str, Any]) -> None:
    long = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, file in source_files.items()
        for node in ast.walk(file.tree)
        if isinstance(node, Function) and node.end_lineno - node.lineno >= MOST_FUNCTION_LINES
    }
    assert not long, _listed(long)


def _only_hands_on(file: Any) -> bool:
    """Tell whether the ``__init__`` of a package is nothing but the names that users import."""
    plain = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr)
    lazy = ("__getattr__", "__dir__")
    return file.is_init and all(
        isinstance(node, plain) or getattr(node, "name", "") in lazy for node in file.tree.body
    )


def test_no_file_is_only_a_part_of_another(
    source_files: Mapping[str, Any], imports: Mapping[str, set[str]]
) -> None:
    importers = Counter(other for names in imports.values() for other in names)
    parts = {
        name: sorted(other for other in imports if name in imports[other])
        for name, file in source_files.items()
        if importers[name] == 1
        and len(file.text.splitlines()) < FEWEST_LINES
        and not _only_hands_on(file)
        and not (ast.get_docstring(file.tree) or "").startswith(OLD_PATH)
    }
    assert not parts, _listed(parts)


def _public_docstrings(name: str, node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the docstrings of a file and of what is public in it, by dotted names."""
    if isinstance(node, (ast.Module, *Described)):
        yield name, ast.get_docstring(node) or ""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Described) and not child.name.startswith("_"):
            yield from _public_docstrings(f"{name}.{child.name}", child)


def test_docstrings_say_what_a_thing_is_or_does(source_files: Mapping[str, Any]) -> None:
    bad = {
        place: text.splitlines()[0]
        for name, file in source_files.items()
        for place, text in _public_docstrings(name, file.tree)
        if text.startswith(BAD_BEGINNINGS)
    }
    assert not bad, _listed(bad)
