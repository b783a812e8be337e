"""Recipes that are right, and ways to break them at random."""

from __future__ import annotations

import inspect
import random
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sparseml.optim.language.registration import registered_modifiers

RECIPES = Path(__file__).parents[1] / "recipes"
CORPUS = Path(__file__).parent / "fuzz_corpus"
VALUES = (CORPUS / "values.txt").read_text().splitlines()
WORDS = (CORPUS / "words.txt").read_text().splitlines()
CHARACTERS = "abcxyz019 \n\t:-[]{},'\"!&*#?|>%@`~<=.()_\\\x00\x7f\ufeff\u2028\u00e9\ud83d"


class Case(NamedTuple):
    """What is given to ``ScheduledModifierManager.from_yaml``."""

    content: bytes
    suffix: str
    """Of the file that the content is read from; empty: it is given as text."""
    variables: Any


Mutation = Callable[[str, list[str], random.Random], str]


def corpus() -> list[str]:
    """Recipes that are right."""
    found = [file.read_text() for file in sorted(CORPUS.glob("*.*")) if file.suffix != ".txt"]
    for _, registration in sorted(registered_modifiers("pytorch").items()):
        text = inspect.getdoc(registration.clazz) or ""
        sample = [line[1:] for line in text.splitlines() if line.startswith("|")][1:]
        if sample:
            lines = textwrap.dedent("\n".join(sample)).splitlines()
            body = [f"  - {lines[0]}", *(f"    {line}" for line in lines[1:])]
            found.append("\n".join(["modifiers:", *body, ""]))
    files = sorted(RECIPES.rglob("*.yaml"))
    return found + [file.read_text() for file in files[:: max(len(files) // 20, 1)]]


def change_characters(text: str, recipes: list[str], rng: random.Random) -> str:
    """Put in, take out or replace single characters."""
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        place = rng.randrange(len(text) + 1)
        new = rng.choice(["", rng.choice(CHARACTERS), rng.choice(CHARACTERS) * 3])
        text = text[:place] + new + text[place + rng.choice([0, 1, 1, 4]) :]
    return text


def change_lines(text: str, recipes: list[str], rng: random.Random) -> str:
    """Take out, repeat, move, indent or borrow whole lines."""
    lines = text.split("\n")
    for _ in range(rng.choice([1, 1, 2, 6])):
        place = rng.randrange(len(lines))
        other = rng.choice(rng.choice(recipes).split("\n"))
        line = lines.pop(place)
        new = {
            "take out": [],
            "repeat": [line] * rng.choice([2, 3, 50]),
            "indent": [" " * rng.choice([1, 2, 4, 400]) + line],
            "dedent": [line[rng.choice([1, 2, 4]) :]],
            "tab": ["\t" + line],
            "borrow": [line, other],
            "join": [line + " " + other],
        }
        lines[place:place] = new[rng.choice(sorted(new))]
        lines = lines or [""]
        if rng.random() < 0.2:
            rng.shuffle(lines)
    return "\n".join(lines)


def change_values(text: str, recipes: list[str], rng: random.Random) -> str:
    """Put other values behind keys, and other keys before values."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        pairs = list(re.finditer(r"([\w.]+)(: +)([^\n]+)", text))
        if not pairs:
            return text
        pair = rng.choice(pairs)
        which = rng.choice([3, 3, 3, 1])
        new = rng.choice(VALUES if which == 3 else [*WORDS, *VALUES])
        if rng.random() < 0.1:
            new = nested(rng)
        text = text[: pair.start(which)] + new + text[pair.end(which) :]
    return text


def change_words(text: str, recipes: list[str], rng: random.Random) -> str:
    """Put other words, tags or values in the place of words."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        found = list(re.finditer(r"[^\s:,\[\]{}]+", text))
        if not found:
            return text
        word = rng.choice(found)
        new = rng.choice([rng.choice(VALUES), rng.choice(WORDS), rng.choice(found).group()])
        text = text[: word.start()] + new + text[word.end() :]
    return text


def splice(text: str, recipes: list[str], rng: random.Random) -> str:
    """The beginning of one recipe and the end of another."""
    other = rng.choice(recipes)
    return text[: rng.randrange(len(text) + 1)] + other[rng.randrange(len(other) + 1) :]


def stretch(text: str, recipes: list[str], rng: random.Random) -> str:
    """Repeat a part many times, or put something big into it."""
    start = rng.randrange(len(text) + 1)
    part = text[start : start + rng.choice([1, 3, 20, 200])]
    times = rng.choice([10, 1000, 20_000])
    return text[:start] + rng.choice([part * times, nested(rng)]) + text[start:]


def nested(rng: random.Random) -> str:
    """Brackets within brackets, a long number, many items, or a long expression."""
    deep, long = rng.choice([5, 60, 3000]), rng.choice([50, 5000, 200_000])
    return rng.choice(
        [
            "[" * deep + "]" * rng.choice([deep, 0]),
            "{a: " * deep + "}" * deep,
            "9" * long,
            "[" + "1, " * long + "]",
            "eval(" + "1+" * long + "1)",
            "eval(" + "(" * deep + "1" + ")" * deep + ")",
            "eval(" + "-" * deep + "1)",
            "eval(2**" + "2**" * deep + "2)",
            "&b [" + "*b, " * deep + "]",
            "eval(round(1.5, " + "9" * deep + "))",
        ]
    )


MUTATIONS: list[Mutation] = [
    change_characters,
    change_lines,
    change_values,
    change_values,
    change_words,
    splice,
    stretch,
]


def make_case(recipes: list[str], rng: random.Random) -> Case:
    """A recipe, changed."""
    text = rng.choice(recipes)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        text = rng.choice(MUTATIONS)(text, recipes, rng)
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    suffix = rng.choice(["", "", ".yaml", ".md"])
    if suffix and rng.random() < 0.2:
        for _ in range(rng.choice([1, 3, 20])):
            content.insert(rng.randrange(len(content) + 1), rng.randrange(256))
    return Case(bytes(content), suffix, make_variables(text, rng) if rng.random() < 0.3 else None)


def make_variables(text: str, rng: random.Random) -> Any:
    """Values for variables of a recipe, in any form that is taken, or not."""
    names = re.findall(r"^([\w.]+):", text, re.MULTILINE) or ["x"]
    values: list[Any] = [
        *VALUES,
        1,
        0.5,
        None,
        True,
        ["a"],
        {"a": 1},
        float("nan"),
        10**30,
        "\n",
        b"x",
    ]
    given = {rng.choice(names): rng.choice(values) for _ in range(rng.choice([1, 1, 3]))}
    text = ",".join(f"{name}={value}" for name, value in given.items())
    return rng.choice([given, given, text, json_like(given), rng.choice(values)])


def json_like(given: dict[str, Any]) -> str:
    """A mapping as JSON, or nearly."""
    return str(given).replace("'", '"')
