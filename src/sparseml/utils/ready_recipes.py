"""Recipes that come with the package, and have names such as ``recipe:timm/one_shot/cap/vit``."""

from __future__ import annotations

from pathlib import Path

READY_PREFIX = "recipe:"
_PACKAGE = Path(__file__).resolve().parents[1]


def ready_recipes() -> dict[str, Path]:
    """Return name, without prefix → file.

    They lie in the package ``sparseml`` where it was installed from a wheel, at the root of the
    repository where it is run from its source.
    """
    installed, source = _PACKAGE / "_recipes", _PACKAGE.parents[1] / "recipes"
    folder = installed if installed.is_dir() else source
    files = sorted(folder.rglob("*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
