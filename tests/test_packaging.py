"""What a wheel holds beside the code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is built for a wheel."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", "built"]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    return source / "built/sparseml"


def test_every_recipe_is_in_it(built: Path) -> None:
    found = {path.relative_to(built / "_recipes") for path in (built / "_recipes").rglob("*.yaml")}
    assert found == {path.relative_to(ROOT / "recipes") for path in ROOT.glob("recipes/**/*.yaml")}


def test_recipes_are_read_from_it(built: Path, tmp_path: Path) -> None:
    program = (
        "from sparseml.optim.helpers import load_recipe_yaml_str\n"
        "print(load_recipe_yaml_str('recipe:timm/one_shot/cap/vit'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(built.parent)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "CAPruningModifier" in done.stdout


@pytest.mark.parametrize("file", ["py.typed", "report/templates"])
def test_other_data_are_in_it(built: Path, file: str) -> None:
    assert (built / file).exists()
