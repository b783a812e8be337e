"""What the tests of the code's shape look at: the package's files, and who imports whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import sparseml

ROOT = Path(sparseml.__file__).parent


@dataclass(frozen=True)
class SourceFile:
    """A file of the package; the ``__init__`` of a package has the package's name."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def is_init(self) -> bool:
        return self.path.name == "__init__.py"


@pytest.fixture(scope="session")
def source_files() -> dict[str, SourceFile]:
    """The files of the package by the names of their modules."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = SourceFile(name, path, text, ast.parse(text))
    return found


@pytest.fixture(scope="session")
def imports(source_files: Mapping[str, SourceFile]) -> dict[str, set[str]]:
    """For each file the files that it imports from, wherever in it the imports stand."""
    return {
        name: {other for other in _named(file, source_files) if other in source_files} - {name}
        for name, file in source_files.items()
    }


def _named(file: SourceFile, known: Mapping[str, SourceFile]) -> Iterator[str]:
    """Yield modules that a file names in imports.

    ``from package import name`` names the module ``package.name`` if there is one, else the
    ``__init__`` of the package. Packages that a name only leads through do not count.
    """
    package = file.name if file.is_init else file.name.rpartition(".")[0]
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base
