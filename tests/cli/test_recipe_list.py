"""Recipes that come with the package, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparseml.optim import RecipeFileNotFoundError
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.utils import ready_recipes as module
from sparseml.utils.ready_recipes import ready_recipes

ROOT = Path(__file__).resolve().parents[2]
NAME = "recipe:timm/one_shot/cap/vit"


def test_every_recipe_of_the_repository_has_a_name(invoke: Any) -> None:
    listed = invoke("list").stdout.splitlines()
    files = [path.relative_to(ROOT / "recipes") for path in (ROOT / "recipes").rglob("*.yaml")]
    assert set(listed) == {f"recipe:{path.with_suffix('').as_posix()}" for path in files}
    assert NAME in listed


def test_words_choose_among_them(invoke: Any, invoke_json: Any) -> None:
    listed = invoke("list", "fast_cap", "vit").stdout.splitlines()
    assert "recipe:timm/gradual/fast_cap/vit" in listed
    assert all("fast_cap" in name and "vit" in name for name in listed)
    none = invoke("list", "cap", "no such thing")
    assert none.stdout == "" and "has cap and no such thing in its name" in none.stderr
    (found,) = invoke_json("list", "timm/one_shot/cap/vit_2of4")["recipes"]
    assert found["name"] == f"{NAME}_2of4" and Path(found["file"]).is_file()


def test_a_name_does_for_a_path_wherever_one_is_asked_for(invoke: Any) -> None:
    file = str(ROOT / "recipes/timm/one_shot/cap/vit.yaml")
    by_name, by_path = (ScheduledModifierManager.from_yaml(path) for path in (NAME, file))
    assert str(by_name) == str(by_path)
    assert invoke("show", f"{NAME}.yaml").stdout == invoke("show", file).stdout
    assert invoke("check", NAME).exit_code == 0


def test_a_name_that_there_is_not(invoke: Any) -> None:
    failed = invoke("check", "recipe:timm/one_shot/cap/vitt")
    assert failed.exit_code == 2 and failed.stderr.count("\n") == 1
    assert "did you mean 'timm/one_shot/cap/vit'" in failed.stderr
    with pytest.raises(RecipeFileNotFoundError, match=r"^recipe:\.\./x: no such recipe"):
        ScheduledModifierManager.from_yaml("recipe:../x")


def test_an_installed_package_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_recipes/some").mkdir(parents=True)
    (tmp_path / "_recipes/some/thing.yaml").write_text("a: 1")
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    assert ready_recipes() == {"some/thing": tmp_path / "_recipes/some/thing.yaml"}
