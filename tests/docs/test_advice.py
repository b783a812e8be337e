"""Pages and examples give the advice that the recipes give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import CAPruningModifier, OBSPruningModifier

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "integrations").rglob("*.md")),
    *sorted((ROOT / "research").glob("*.md")),
]
READY = sorted((ROOT / "recipes/timm").glob("*/cap/*.yaml"))
SCRIPTS = [
    path
    for folder in ("research", "integrations", "src/sparseml/cli", "src/sparseml/run", "configs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".sh", ".yaml")
]


def _cap_values(text: str) -> list[tuple[float, float | str]]:
    """Return block size and dampening of the CAP modifiers of a recipe that do not say effort."""
    manager = ScheduledModifierManager.from_yaml(text)
    return [
        (one.fisher_block_size, one.damp)
        for one in manager.iter_modifiers()
        if isinstance(one, CAPruningModifier) and one.effort is None
    ]


ADVISED = {values for path in READY for values in _cap_values(path.read_text())}


def _numbers(text: str, name: str) -> set[float]:
    return {float(value) for value in re.findall(rf"{name}\W+([\d.]+(?:e-?\d+)?)", text)}


def test_the_ready_recipes_agree() -> None:
    assert {damp for _, damp in ADVISED} == {"auto"}
    assert _cap_values((ROOT / "recipes/timm/one_shot/cap/resnet.yaml").read_text()) == [
        (256, "auto")
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_of_cap_have_the_values_of_the_recipes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if "!CAPruningModifier" in block:
            assert set(_cap_values(block)) <= ADVISED
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        for quoted, plain in re.findall(r"--recipe-args +(?:'([^']*)'|(\S+))", section):
            if re.search("damp|fisher_block_size", quoted + plain):
                assert re.search(r"than the recipe|not the values of the recipes", section)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_other_values_are_named_with_what_the_recipes_have(page: Path) -> None:
    if page.name == "modifiers.md":  # lists defaults
        return
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for paragraph in text.split("\n\n"):
        if re.search(r"\b1e-6\b|[Bb]locks (of|have) 64", " ".join(paragraph.split())):
            assert "recipes" in paragraph, paragraph


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_with_other_values_say_so(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if "damp" in text and (_numbers(text, "damp") | _numbers(text, "DAMP")) & {1e-6, 1e-7}:
        assert "no advice" in text and "recipes" in text


@pytest.mark.parametrize("kind", [CAPruningModifier, OBSPruningModifier])
def test_the_class_says_where_its_defaults_are_not_the_advice(kind: type) -> None:
    text = " ".join((kind.__doc__ or "").split())
    assert "ready recipes have" in text
    if kind is CAPruningModifier:
        (size,) = _numbers(text, "fisher_block_size:(?= )")
        assert "damp: auto" in text
        assert (size, "auto") in ADVISED


def test_the_demo_says_why_its_blocks_are_small() -> None:
    text = (ROOT / "recipes/demo/one_shot_cap.yaml").read_text()
    assert _cap_values(text)[0] not in ADVISED
    assert "recipes/timm have" in text
