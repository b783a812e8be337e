"""Reading files in the format of SQuAD, version 1.1 or 2."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseml.run.errors import RunError, few
from sparseml.utils.plain import json_of

_MISSING = object()


@dataclass(frozen=True)
class Question:
    """A question about a text.

    :param answers: each as it stands in the context, with the position of its first character;
        none where the text does not answer the question
    """

    id: str
    text: str
    context: str
    answers: tuple[tuple[str, int], ...]

    @property
    def is_impossible(self) -> bool:
        """Whether the text does not answer the question."""
        return not self.answers


def read_squad(path: str | Path) -> list[Question]:
    """Return the questions of a JSON file, gzipped or not.

    :raises RunError: naming the file and the place in it that is not as SQuAD's
    """
    opened: Any = gzip.open if str(path).endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            content = json_of(file.read())
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RunError(f"{path} is no JSON: {error}") from error
    questions: dict[str, Question] = {}
    for place, found in _questions(content, str(path)):
        if found.id in questions:
            raise RunError(f"{place}: a second question has the id {found.id!r}")
        questions[found.id] = found
    if not questions:
        raise RunError(f"{path} has no questions")
    return list(questions.values())


def _questions(content: Any, file: str) -> Iterator[tuple[str, Question]]:
    for place, article in _items(content, "data", file):
        for inner, paragraph in _items(article, "paragraphs", place):
            context = _value(paragraph, "context", str, inner)
            for at, entry in _items(paragraph, "qas", inner):
                impossible = _value(entry, "is_impossible", bool, at, default=False)
                answers = () if impossible else tuple(_answers(entry, context, at))
                if not answers and not impossible:
                    raise RunError(f"{at} has no answer and is not marked as is_impossible")
                name, text = _value(entry, "id", str, at), _value(entry, "question", str, at)
                # a text that begins with blanks can be all blank to a tokenizer that truncates
                yield at, Question(name, text.strip(), context, answers)


def _answers(entry: Any, context: str, place: str) -> Iterator[tuple[str, int]]:
    for at, answer in _items(entry, "answers", place):
        text, start = _value(answer, "text", str, at), _value(answer, "answer_start", int, at)
        found = context[start : start + len(text)] if start >= 0 else ""
        if not text or found != text:
            raise RunError(
                f"{at}: the context has {found!r} at answer_start {start}, not the answer {text!r}"
            )
        yield text, start


def _items(holder: Any, key: str, place: str) -> Iterator[tuple[str, Any]]:
    for number, item in enumerate(_value(holder, key, list, place)):
        inside = f": {key}" if "[" not in place else f".{key}"
        yield f"{place}{inside}[{number}]", item


def _value(holder: Any, key: str, kind: type, place: str, default: Any = _MISSING) -> Any:
    if not isinstance(holder, Mapping):
        found = type(holder).__name__
        raise RunError(f"{place}: SQuAD's format has a mapping with {key!r} here, found a {found}")
    value = holder.get(key, default)
    if value is _MISSING:
        has = few(map(repr, holder), 6)
        raise RunError(f"{place}: SQuAD's format has {key!r} here, found {has}")
    if not isinstance(value, kind):
        found = type(value).__name__
        raise RunError(f"{place}: {key!r} must be a {kind.__name__}, found a {found}")
    return value
