"""What the documentation says is so."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from sparseml.optim import RecipeTypeError
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.utils import restricted_eval

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
RECIPES = [
    (page.stem, number, text)
    for page in PAGES
    for number, text in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
    if "modifiers:" in text
]


def test_the_page_of_modifiers_is_up_to_date() -> None:
    namespace = runpy.run_path(str(ROOT / "docs" / "generate_modifiers.py"))
    written = (ROOT / "docs" / "modifiers.md").read_text(encoding="utf-8")
    assert written == namespace["page"](), "run: python docs/generate_modifiers.py"


@pytest.mark.parametrize(
    "text", [text for *_, text in RECIPES], ids=[f"{page}-{n}" for page, n, _ in RECIPES]
)
def test_recipes_in_the_documentation_load(text: str) -> None:
    if "!RelativeMagnitudePruningModifier" in text:
        pytest.skip("names a modifier that the page teaches to write")
    assert list(ScheduledModifierManager.from_yaml(text).iter_modifiers())


def test_there_are_recipes_to_load() -> None:
    assert {page for page, *_ in RECIPES} >= {"index", "recipes"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+\.md)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f" {page.name}" not in navigation] == []


def test_the_loop_of_the_front_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    (loop,) = re.findall(r"```python\n(import torch\n.*?)```", page, re.DOTALL)
    (recipe,) = BLOCK.findall(page)
    model = torch.nn.Linear(20, 10)
    names = {
        "model": model,
        "loader": [(torch.randn(4, 20), torch.randint(10, (4,)))] * 3,
        "loss_function": torch.nn.functional.cross_entropy,
        "recipe": recipe.replace("20.0", "4.0"),
    }
    # the reader's recipe is a file; the text does as well
    program = tmp_path / "loop.py"
    program.write_text(loop.replace('"recipe.yaml"', "recipe"))
    runpy.run_path(str(program), names)
    assert int((model.weight == 0).sum()) == round(0.9 * 200)


def test_the_page_on_loops_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "your_own_loop.md").read_text(encoding="utf-8")
    (recipe,) = BLOCK.findall(page)
    model = torch.nn.Linear(20, 10)
    names: dict[str, Any] = {
        "model": model,
        "loader": [(torch.randn(4, 20), torch.randint(10, (4,)))] * 4,
        "loss_function": torch.nn.functional.cross_entropy,
        "scaler": torch.amp.GradScaler("cpu", init_scale=8.0),
    }
    program = tmp_path / "loop.py"
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    text = "\n".join(blocks).replace('"recipe.yaml"', repr(recipe))
    # the reader goes on to train; the page's loop has finalized the manager
    program.write_text(text.replace("manager.finalize(model)", ""))
    names |= runpy.run_path(str(program), names)
    assert int((model.weight == 0).sum()) == round(0.9 * 200)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 1.0 True False" and lines[-1] == "weight: 0.825"

    taken = names["driver"].position.steps
    names["save"](tmp_path / "checkpoint.pt")
    names["train_step"](*names["loader"][0])
    assert names["driver"].position.steps == taken + 1 == 25
    names["train_step"](torch.full((4, 20), torch.inf), names["loader"][0][1])
    assert names["driver"].position.steps == taken + 1
    names["load"](tmp_path / "checkpoint.pt")
    assert names["driver"].position.steps == taken


def test_expressions_as_documented() -> None:
    assert repr(restricted_eval("2 * 3")) == "6"
    assert repr(restricted_eval("2 * 3.0")) == "6.0"
    assert restricted_eval("max(-1, abs(-2) // 2, round(0.4))") == 1


def test_the_example_of_an_error_is_real(tmp_path: Path) -> None:
    fields = ["params: []", "init_sparsity: 0.1", "start_epoch: 0.0", "end_epoch: 1.0"]
    lines = ["x: 1", "", "", "", "", "modifiers:", "  - !MagnitudePruningModifier"]
    lines += [f"      {field}" for field in [*fields, "final_sparisty: 0.9", "update_frequency: 1"]]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(RecipeTypeError) as caught:
        ScheduledModifierManager.from_yaml(path)
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert str(caught.value).removeprefix(f"{tmp_path}/") in page


def test_what_differs_from_1x(caplog: pytest.LogCaptureFixture) -> None:
    repeated = (
        "modifiers:\n  - !EpochRangeModifier\n    start_epoch: 0.0\n"
        "    end_epoch: 1.0\n    end_epoch: 2.0\n"
    )
    assert ScheduledModifierManager.from_yaml(repeated).max_epochs == 2
    assert "occurs twice, in line 4 and in line 5" in caplog.text
    with pytest.raises(RecipeTypeError, match=r"0\.0"):
        ScheduledModifierManager.from_yaml(
            "modifiers:\n  - !MagnitudePruningModifier\n    params: []\n    init_sparsity: 0\n"
            "    final_sparsity: 0.5\n    start_epoch: 0.0\n    end_epoch: 1.0\n"
            "    update_frequency: 1.0\n"
        )
