"""Puts the ready recipes into the package; everything else is declared in pyproject.toml."""

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py

RECIPES = Path(__file__).parent / "recipes"


class BuildWithRecipes(build_py):
    """Builds with ``recipes/`` as ``sparseml/_recipes``; an editable install needs no copy."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copytree(RECIPES, Path(self.build_lib) / "sparseml" / "_recipes", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithRecipes})
