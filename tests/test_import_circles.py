"""No files of the package need each other, not even for types or inside a function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest


def _reachable(graph: Mapping[str, Iterable[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(graph[name])
    return seen


def _circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the sets of more than one file of which each leads to each."""
    reach = {name: _reachable(graph, name) for name in graph}
    circles = {
        tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph
    }
    return sorted(list(circle) for circle in circles if len(circle) > 1)


@pytest.mark.parametrize(
    ("graph", "circles"),
    [
        pytest.param({"a": "b", "b": "c", "c": ""}, [], id="a line"),
        pytest.param({"a": "bc", "b": "c", "c": ""}, [], id="two ways down"),
        pytest.param({"a": "b", "b": "ac", "c": ""}, [["a", "b"]], id="a pair"),
        pytest.param(
            {"a": "b", "b": "c", "c": "ad", "d": "e", "e": "d"},
            [["a", "b", "c"], ["d", "e"]],
            id="a ring above a pair",
        ),
    ],
)
def test_circles_are_found(graph: dict[str, str], circles: list[list[str]]) -> None:
    assert _circles(graph) == circles


def test_every_way_to_import_counts(imports: Mapping[str, set[str]]) -> None:
    folder = "sparseml.pytorch.functional.second_order"
    # a submodule named in its package, and a name that a file holds
    assert f"{folder}.batched" in imports[f"{folder}.obs"]
    assert f"{folder}.linalg" in imports[f"{folder}.obs"]
    # inside a function
    assert f"{folder}.numba_cpu" in imports[f"{folder}.obs"]


def test_no_files_import_each_other(imports: Mapping[str, set[str]]) -> None:
    found = [
        f"{name} -> {', '.join(sorted(imports[name] & set(circle)))}"
        for circle in _circles(imports)
        for name in circle
    ]
    assert not found, "\n".join(found)
