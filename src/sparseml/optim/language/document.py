"""A recipe as plain data, with the place in the text of every part.

Tags become keys: ``!Name`` turns into ``OBJECT.Name``, with the fields either beside it or, if they
are indented further than the tag or in braces, below it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from sparseml.optim.errors import RecipeError, RecipeTagError, RecipeValueError
from sparseml.optim.language.source import RecipeSource
from sparseml.optim.language.yaml_text import MAX_DEPTH, MAX_NODES, compose, is_yaml_number
from sparseml.utils.constants import RECIPE_METADATA_KEY
from sparseml.utils.text import few, shortened
from sparseml.utils.written_number import WrittenNumber

_LOGGER = logging.getLogger(__name__)

GROUP_WORD = "modifiers"
TAG_PREFIX = "OBJECT."
_TAG = re.compile(r"^!(?P<name>[a-zA-Z_][a-zA-Z^._0-9]+)$")
_STANDARD = "tag:yaml.org,2002:"
_MERGE = f"{_STANDARD}merge"

Path = tuple[Hashable, ...]
ErrorT = TypeVar("ErrorT", bound=RecipeError)

_scalars = yaml.constructor.SafeConstructor()


def _float(node: yaml.ScalarNode) -> float:
    number = float(_scalars.construct_yaml_float(node))
    # what is text in YAML 1.1 prints as such
    return number if is_yaml_number(node.value) else WrittenNumber(node.value.replace("_", ""))


_SCALARS = {
    f"{_STANDARD}bool": _scalars.construct_yaml_bool,
    f"{_STANDARD}float": _float,
    f"{_STANDARD}int": _scalars.construct_yaml_int,
    f"{_STANDARD}null": _scalars.construct_yaml_null,
    f"{_STANDARD}str": _scalars.construct_yaml_str,
    f"{_STANDARD}value": _scalars.construct_yaml_str,  # the plain text "="
    "!": _scalars.construct_yaml_str,
}


@dataclass(frozen=True)
class Repeated:
    """A key that occurs in several lines of one mapping; its last value holds."""

    path: Path
    lines: list[int]

    def __str__(self) -> str:
        key, first, count = shortened(self.path[-1]), self.lines[0], len(self.lines)
        if count == 2:
            return f"the key {key} occurs twice, in line {first} and in line {self.lines[1]}"
        return f"the key {key} occurs {count} times, from line {first} to line {self.lines[-1]}"


@dataclass
class Document:
    """A recipe as plain data.

    :param container: dicts, lists and scalars
    :param marks: line and column, counted from 1, of keys and list items by their path of keys and
        indices
    """

    source: RecipeSource
    container: Any = None
    marks: dict[Path, tuple[int, int]] = field(default_factory=dict)
    repeated: dict[Path, Repeated] = field(default_factory=dict)

    def place(self, path: Path) -> dict[str, Any]:
        """Return file, line, column and key of the nearest part known, for a recipe error."""
        key = next((part for part in reversed(path) if isinstance(part, str)), None)
        key = key and key.replace(TAG_PREFIX, "!")
        while path and path not in self.marks:
            path = path[:-1]
        # of the recipe as a whole no line is worth looking at
        line, column = self.marks[path] if path else (None, None)
        return {"file": self.source.file, "line": line, "column": column, "key": key}

    def error(self, kind: type[ErrorT], message: str, path: Path = (), **details: Any) -> ErrorT:
        """Return an error that points at ``path``."""
        return kind(message, **{**self.place(path), **details})


def children(container: Any) -> Iterable[tuple[Any, Any]]:
    """Return keys and values of a mapping, or indices and items of a list; else nothing."""
    if isinstance(container, dict):
        return container.items()
    return enumerate(container) if isinstance(container, list) else ()


def tag_key(item: Any) -> str | None:
    """Return the key that stands for a tag, if ``item`` is a mapping with exactly one."""
    if not isinstance(item, dict):
        return None
    keys = [key for key in item if isinstance(key, str) and key.startswith(TAG_PREFIX)]
    return keys[0] if len(keys) == 1 else None


def is_group_key(key: Any) -> bool:
    """Whether a key's text announces modifiers."""
    return GROUP_WORD in str(key)


def stages_of(container: Mapping[Any, Any]) -> dict[Any, Any]:
    """The stages of a recipe: those values of root keys that are mappings with a group in them."""
    return {
        key: value
        for key, value in container.items()
        if key != RECIPE_METADATA_KEY
        and isinstance(value, Mapping)
        and not tag_key(value)
        and any(map(is_group_key, value))
    }


def check_if_staged_recipe(container: Mapping[Any, Any]) -> bool:
    """Whether a recipe has stages."""
    return bool(stages_of(container))


def variables_of(container: Mapping[Any, Any]) -> dict[Any, Any]:
    """The variables at the root of a recipe, or in a stage."""
    stages = stages_of(container)
    return {
        key: value
        for key, value in container.items()
        if not (is_group_key(key) and (isinstance(value, list) or value is None))
        and key not in stages
    }


class _Reader:
    """Turns nodes into plain data, counting what aliases multiply."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node, path: Path) -> Any:
        self._document.marks.setdefault(path, self._mark(node))
        self._count += 1
        if id(node) in self._open:
            raise self._error(RecipeValueError, "an alias refers to what contains it", node)
        if self._count > MAX_NODES or len(path) > MAX_DEPTH:
            raise self._error(RecipeValueError, "aliases make the recipe too large", node)
        self._open.add(id(node))
        value = self._read_tagged(node, path) if self._is_tagged(node) else self._read(node, path)
        self._open.discard(id(node))
        return value

    def _mark(self, node: yaml.Node) -> tuple[int, int]:
        mark = node.start_mark
        return mark.line + self._document.source.first_line, mark.column + 1

    def _error(self, kind: type[ErrorT], message: str, node: yaml.Node, **details: Any) -> ErrorT:
        line, column = self._mark(node)
        file = self._document.source.file
        return kind(message, file=file, line=line, column=column, **details)

    def _is_tagged(self, node: yaml.Node) -> bool:
        return node.tag != "!" and not node.tag.startswith(_STANDARD)

    def _read(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_STANDARD}map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_STANDARD}seq":
            # not left to read(): a repeated key may have had a list here before
            items = {(*path, index): item for index, item in enumerate(node.value)}
            self._document.marks.update((at, self._mark(item)) for at, item in items.items())
            return [self.read(item, at) for at, item in items.items()]
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        construct = _SCALARS.get(node.tag)
        if construct is None or not isinstance(node, yaml.ScalarNode):
            tag = node.tag.replace(_STANDARD, "!!")
            message = f"{tag:.80} is not allowed in a recipe"
            raise self._error(RecipeTagError, message, node, found=tag)
        try:
            return construct(node)
        except (ValueError, LookupError) as err:  # IndexError: a number without a digit
            message = f"{shortened(node.value)} is not a valid value: {err}"
            raise self._error(RecipeValueError, message, node, found=node.value) from err

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                # what is merged first wins
                merged = {**self._merged(value_node, path), **merged}
                continue
            key = self._key(key_node)
            value_path = (*path, key)
            if key in values:
                self._note_repeated(value_path, self._mark(key_node)[0])
            self._document.marks[value_path] = self._mark(key_node)
            values[key] = self.read(value_node, value_path)
        return {**merged, **values}

    def _note_repeated(self, path: Path, line: int) -> None:
        known = self._document.repeated
        if path not in known:
            known[path] = Repeated(path, [self._document.marks[path][0]])
        known[path].lines.append(line)

    def _key(self, node: yaml.Node) -> Any:
        if self._is_tagged(node):
            where = "must begin on a line of their own, or in braces"
            message = f"the fields of {node.tag:.80} {where}"
            raise self._error(RecipeTagError, message, node, found=node.tag)
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(RecipeValueError, "a key must be a plain value", node)
        return self._scalar(node)

    def _merged(self, node: yaml.Node, path: Path) -> dict[Any, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[Any, Any] = {}
        for source in sources:
            value = self.read(source, (*path, "<<"))
            if not isinstance(value, dict):
                raise self._error(RecipeValueError, "'<<' can only merge mappings", node)
            merged = {**value, **merged}
        return merged

    def _read_tagged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        match = _TAG.match(node.tag)
        if match is None or isinstance(node, yaml.SequenceNode):
            message = f"{node.tag:.80} {'needs fields' if match else 'is not a valid tag'}"
            raise self._error(RecipeTagError, message, node, found=node.tag)
        key = f"{TAG_PREFIX}{match['name']}"
        tag_path = (*path, key)
        self._document.marks[tag_path] = self._mark(node)
        if not isinstance(node, yaml.MappingNode):
            if node.value:
                message = f"{node.tag:.80} is followed by {shortened(node.value)} instead of fields"
                raise self._error(RecipeTagError, message, node, found=node.value)
            return {key: None}
        column = node.value[0][0].start_mark.column if node.value else None
        if node.flow_style or column is None or column > node.start_mark.column:
            return {key: self._mapping(node, tag_path)}
        return {key: None, **self._mapping(node, path)}


def parse(source: RecipeSource, *, warn: bool = True) -> Document:
    """Read a recipe's text. Of a key that occurs twice in one mapping the last value holds.

    :param warn: log a warning about such keys
    :raises RecipeError: if it is not YAML, exceeds a limit, or has a tag that does not stand before
        fields
    """
    document = Document(source)
    node = compose(source.text, source.file, source.first_line)
    if node is not None:
        document.container = _Reader(document).read(node, ())
    if warn and document.repeated:
        place = f"{source.file}: " if source.file else ""
        told = few(document.repeated.values(), between="; ")
        _LOGGER.warning("%s%s; the last value holds", place, told)
    return document
