"""The benchmark that a test module is named after."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """``test_kill_resume.py`` gets ``benchmarks/kill_resume.py``."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        for path in FOLDER.glob("*.py"):
            patch.delitem(sys.modules, path.stem, raising=False)
        yield importlib.import_module(name)
