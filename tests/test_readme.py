"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sparseml.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(text for text in found if containing in text)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    text = block("yaml", "recipe.yaml")
    (tmp_path / "recipe.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return text


def test_the_loop_prunes_to_what_the_recipe_asks(recipe: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    torch.manual_seed(0)
    names: dict[str, object] = {}
    code = compile(block("python", "manager.modify"), "README.md", "exec")
    exec(code, names)  # noqa: S102 - our own text

    model = names["model"]
    weights = [layer.weight for layer in model if hasattr(layer, "weight")]  # type: ignore[attr-defined]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == round(0.9 * sum(weight.numel() for weight in weights))
    images, labels = names["x"].float() / 16, names["y"]  # type: ignore[attr-defined]
    assert float((model(images).argmax(1) == labels).float().mean()) > 0.8  # type: ignore[operator]


def test_recipe_check_prints_what_is_shown(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    monkeypatch.setenv("COLUMNS", "120")
    shown = block("console", "$ sparseml recipe check recipe.yaml")
    command, _, output = shown.partition("\n")
    result = CliRunner().invoke(main, command.split()[2:])
    assert result.exit_code == 0
    assert [line.rstrip() for line in result.output.strip().splitlines()] == output.splitlines()


def test_a_mistake_costs_a_line(recipe: str) -> None:
    Path("broken.yaml").write_text(recipe.replace("final_sparsity", "final_sparisty"))
    command, _, output = block("console", "broken.yaml").partition("\n")
    result = CliRunner().invoke(main, command.split()[2:])
    assert result.exit_code == 2
    assert result.output == output


def test_the_links_lead_somewhere() -> None:
    root = Path(__file__).parents[1]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (root / link).exists()] == []
