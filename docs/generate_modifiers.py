"""Writes docs/modifiers.md from the modifiers themselves and docs/modifier_guide.yaml.

    python docs/generate_modifiers.py

To be run after a modifier or a field was added; a test compares the file with what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

import sparseml.pytorch.sparsification
from sparseml.optim.declared_fields import described_fields
from sparseml.optim.language.registration import registered_modifiers
from sparseml.optim.props import ModifierProp
from sparseml.optim.steps import STEP_TWINS

PAGE = Path(__file__).with_name("modifiers.md")
GUIDE: dict[str, dict[str, str]] = yaml.safe_load(
    Path(__file__).with_name("modifier_guide.yaml").read_text(encoding="utf-8")
)
"""Modifier → ``when`` to take it, and an ``example``."""
PACKAGE = sparseml.pytorch.sparsification.__name__
TITLES = {
    "training": "Training",
    "pruning": "Pruning",
    "distillation": "Distillation",
    "composing": "Composing",
    "quantization": "Quantization",
}
OTHERS = "Structure"
HEAD = """\
# Modifiers

Every modifier that a recipe can name: when to take it, an example, and all fields. Which pruner
suits which network is in [Choose a method](choosing.md). This page is written by
`docs/generate_modifiers.py`.

`start_epoch`, `end_epoch` and `update_frequency` may be given in optimizer steps instead, as
`start_step`, `end_step` and `update_steps`; see [Recipes](recipes.md#epochs-and-steps).
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page as it should be."""
    sections: dict[str, list[type]] = {title: [] for title in [*TITLES.values(), OTHERS]}
    for _, registration in sorted(registered_modifiers("pytorch").items()):
        clazz = registration.clazz
        if not clazz.__module__.startswith(f"{PACKAGE}."):
            continue  # of a user, or of a test
        part = clazz.__module__.removeprefix(f"{PACKAGE}.").partition(".")[0]
        sections[TITLES.get(part, OTHERS)].append(clazz)
    lines = [HEAD]
    for title, classes in sections.items():
        if classes:
            lines += [f"## {title}\n", *(_modifier(clazz) for clazz in classes)]
    return "\n".join(lines)


def _modifier(clazz: type) -> str:
    rows = [f"| `{name}` | {default} | {text} |" for name, default, text in _fields(clazz)]
    table = ["| field | default | |", "|---|---|---|", *rows] if rows else ["It has no fields."]
    guide = GUIDE[clazz.__name__]
    example = f"```yaml\nmodifiers:\n{indent(guide['example'], '  ')}```\n"
    when = f"**When.** {guide['when']}\n"
    return "\n".join([f"### {clazz.__name__}\n", f"{_summary(clazz)}\n", when, example, *table, ""])


def _summary(clazz: type) -> str:
    """The paragraphs of the docstring before its sample or its parameters."""
    text = inspect.cleandoc(clazz.__doc__ or "")
    kept = []
    for paragraph in text.split("\n\n"):
        if paragraph.lstrip().startswith((":param", ":raises", "|")):
            break
        kept.append(" ".join(paragraph.split()))
    return _as_markdown("\n\n".join(kept))


def _fields(clazz: type) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of what a recipe may say, in the constructor's order."""
    descriptions = described_fields(clazz)
    for name, parameter in inspect.signature(clazz).parameters.items():
        prop = inspect.getattr_static(clazz, name, None)
        if not isinstance(prop, ModifierProp) or name in STEP_TWINS:
            continue
        given = parameter.default
        default = "required" if given is parameter.empty else f"`{_text(given)}`"
        meaning = descriptions.get(name) or prop.__doc__ or ""
        yield name, default, _as_markdown(" ".join(meaning.split())).replace("|", "\\|")


def _text(default: Any) -> str:
    return repr(default) if not isinstance(default, str) else default


def _as_markdown(text: str) -> str:
    return re.sub(r":(?:class|func|meth):`~?", "`", text.replace("``", "`"))


if __name__ == "__main__":
    main()
