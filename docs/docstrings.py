"""What mkdocstrings is told of our docstrings: roles and line blocks of reST become Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|data|attr|mod):`(~?)([^`]+)`")
_LINES = re.compile(r"(?:^\|.*\n?)+", re.MULTILINE)
_BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)


class Markdown(griffe.Extension):
    """Rewrite each docstring once, when it has been read."""

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Return a docstring with code in backquotes and examples in fences."""
    text = _ROLE.sub(lambda role: f"`{role[2].rpartition('.')[2] if role[1] else role[2]}`", text)
    text = _LINES.sub(_fenced_lines, text.replace("``", "`"))
    return _BLOCK.sub(lambda block: _fence(block[1], re.sub("(?m)^ {4}", "", block[2])), text)


def _fenced_lines(block: re.Match[str]) -> str:
    """Return a block of lines that begin with ``|``: a title, and code that is set in."""
    first, *lines = (line[2:] for line in block[0].splitlines())
    return f"{first}\n\n{_fence('python', chr(10).join(line[2:] for line in lines))}"


def _fence(language: str, code: str) -> str:
    return f"```{language}\n{code.strip()}\n```\n"
