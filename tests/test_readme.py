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
    code = compile(block("python", "load_digits"), "README.md", "exec")
    exec(code, names)  # noqa: S102 - our own text

    model = names["model"]
    weights = [layer.weight for layer in model if hasattr(layer, "weight")]  # type: ignore[attr-defined]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == round(0.9 * sum(weight.numel() for weight in weights))
    images, labels = names["x"].float() / 16, names["y"]  # type: ignore[attr-defined]
    assert float((model(images).argmax(1) == labels).float().mean()) > 0.8  # type: ignore[operator]


def test_the_first_lines_of_code_run(recipe: str) -> None:
    torch = pytest.importorskip("torch")
    data = [(torch.randn(8), number % 4) for number in range(64)]
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    names: dict[str, object] = {
        "model": model,
        "loader": torch.utils.data.DataLoader(data, batch_size=8),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    exec(compile(block("python", "in one shot"), "README.md", "exec"), names)  # noqa: S102
    assert float((model[0].weight == 0).float().mean()) == pytest.approx(0.8, abs=0.01)
    assert callable(names["optimizer"].step)  # type: ignore[attr-defined]


def test_recipe_check_of_this_recipe_is_on_the_page_of_recipes(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setenv("COLUMNS", "120")
    page = (Path(__file__).parents[1] / "docs/recipes.md").read_text(encoding="utf-8")
    shown = re.findall(
        r"```console\n(\$ sparseml recipe check recipe.yaml .*?)```", page, re.DOTALL
    )
    command, _, output = next(one for one in shown if "Timeline" in one).partition("\n")
    result = CliRunner().invoke(main, command.split()[2:])
    assert result.exit_code == 0
    assert [line.rstrip() for line in result.output.strip().splitlines()] == output.splitlines()


def test_commands_print_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    shown = block("console", "$ sparseml recipe new")
    for command, output in re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", shown, re.MULTILINE):
        result = CliRunner().invoke(main, command.split()[1:])
        assert result.exit_code == 0, result.output
        assert result.output.endswith(output.removeprefix("...\n"))


def test_the_table_is_of_the_demo() -> None:
    demo = (Path(__file__).parents[1] / "docs/demo.md").read_text(encoding="utf-8")
    rows = [
        line.split("|")[2:-1]
        for line in README.splitlines()
        if "as fast" in line and line.startswith("|")
    ]
    assert len(rows) == 6
    runs = [
        re.split(r"\s{2,}", line.strip())
        for line in demo.splitlines()
        if "%" in line and "(" in line
    ]
    for accuracy, _, size, time, _ in rows:
        kib, ms = size.split()[0], time.strip()
        assert any(
            run[1].split()[0] == accuracy.strip()
            and f" {kib} (" in " ".join(["", *run])
            and f"{float(ms):g} (" in run[-1]
            for run in runs
        ), accuracy


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
