"""Names of SparseML 1.x that are gone say what takes their place."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import sparseml
from sparseml.gone import GONE, GoneFinder, what_takes_its_place

ROOT = Path(sparseml.__file__).parent
MESSAGE = r"of SparseML 1\.x is gone: .*docs/migrating\.md"


@pytest.mark.parametrize("name", sorted(GONE))
def test_every_way_to_import_it(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=MESSAGE) as caught:
        importlib.import_module(name)
    text = str(caught.value)
    assert text.startswith(f"{name} of") or "transformers" in name
    assert "\n" not in text and len(text) < 300
    with pytest.raises(ModuleNotFoundError, match=MESSAGE):
        importlib.import_module(f"{name}.inner.thing")
    package, _, last = name.rpartition(".")
    if name in ("sparseml.export", "sparseml.pytorch.torchvision"):
        return  # these packages have something else by that name
    with pytest.raises(ImportError, match=MESSAGE):
        exec(f"from {package} import {last}")  # noqa: S102 - the statement is what is tested


@pytest.mark.parametrize("name", sorted(GONE))
def test_it_is_gone(name: str) -> None:
    path = ROOT.joinpath(*name.split(".")[1:])
    assert not path.is_dir() and not path.with_suffix(".py").exists()


def test_other_names_stay_as_they_are() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'sparseml\.nothing'") as caught:
        importlib.import_module("sparseml.nothing")
    assert caught.value.name == "sparseml.nothing"
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from sparseml.pytorch import nothing")  # noqa: S102 - as above
    assert not hasattr(sparseml, "create_session")
    assert importlib.util.find_spec("sparseml.pytorch") is not None
    assert what_takes_its_place("json") is None and what_takes_its_place("sparseml") is None


def test_frameworks_are_still_detected() -> None:
    assert sparseml.detect_framework("keras").value == "keras"
    assert sparseml.detect_framework("model.pt").value == "pytorch"
    assert sparseml.detect_framework(3).value == "unknown"


def test_it_is_installed_once_and_last() -> None:
    GoneFinder.install()
    assert sys.meta_path.count(GoneFinder) == 1  # type: ignore[arg-type]
    code = "import sparseml, sys; print(sys.meta_path[-1].__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "GoneFinder"
