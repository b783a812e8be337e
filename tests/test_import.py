from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sparseml
from sparseml import _refuse_rivals as refuse_rivals

HEAVY = ("torch", "yaml", "pydantic", "numpy", "rich", "simpleeval", "importlib.metadata", "click")


def loaded_after(statement: str) -> set[str]:
    """The heavy modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys, json; {statement}; print(json.dumps(list(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return set(json.loads(run.stdout)) & set(HEAVY)


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import sparseml; sparseml.reset_session(); sparseml.__version__") == set()
    assert loaded_after("import sparseml.base, sparseml.log; sparseml.Framework") == set()


def test_the_recipe_language_needs_no_torch() -> None:
    assert loaded_after("import sparseml.optim") == {"yaml", "simpleeval"}
    loaded = loaded_after("import sparseml.sparsification as s; s.EpochRangeModifier")
    assert loaded == {"yaml", "simpleeval"}


@pytest.mark.parametrize("name", sorted(sparseml.__all__))
def test_every_name_can_be_imported(name: str) -> None:
    assert getattr(sparseml, name) is not None or name == "version_build"
    assert name in dir(sparseml)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sparseml.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["evaluate", "export"])
def test_functions_of_old_say_that_they_are_gone(name: str) -> None:
    function: Any = getattr(sparseml, name)
    with pytest.raises(NotImplementedError, match=rf"sparseml\.{name} belonged to SparseML 1\.x"):
        function("model", key=1)


def test_version_and_its_pieces() -> None:
    from sparseml.version import __version__, version_base, version_build

    pieces = __version__.split(".")
    assert sparseml.version == __version__
    assert [sparseml.version_major, sparseml.version_minor, sparseml.version_bug] == pieces[:3]
    assert sparseml.version_major_minor == ".".join(pieces[:2])
    assert __version__.startswith(version_base)
    assert version_build == (pieces[3] if len(pieces) > 3 else None)


@pytest.mark.parametrize(
    ("name", "rival"),
    [
        ("sparseml-1.8.0.dist-info", "'sparseml' 1.8.0"),
        ("sparseml-1.8.0-py3.10.egg-info", "'sparseml' 1.8.0"),
        ("sparseml.egg-info", "'sparseml' "),
        ("sparseml_nightly-1.9.0.20240101.dist-info", "'sparseml-nightly' 1.9.0.20240101"),
        ("sparseml_next-2.0.0.dist-info", None),
        ("sparsezoo-1.8.0.dist-info", None),
        ("sparseml", None),
    ],
)
def test_another_distribution_of_the_same_package(
    tmp_path: Path, name: str, rival: str | None
) -> None:
    folder = tmp_path / "site-packages"
    (folder / name).mkdir(parents=True)
    paths = [str(tmp_path / "missing" / "site-packages"), f"{folder}/"]
    if rival is None:
        refuse_rivals(paths)
    else:
        with pytest.raises(ImportError) as info:
            refuse_rivals(paths)
        assert f"The distribution {rival}" in str(info.value)
        assert "pip uninstall -y sparseml" in str(info.value)
        assert "pip install sparseml-next" in str(info.value)


def test_only_folders_that_packages_are_installed_into_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "sparseml-1.8.0.dist-info").mkdir()
    refuse_rivals([str(tmp_path), ""])
