"""Recipes that attack: they give one error, quickly, and never run anything."""

from __future__ import annotations

import itertools
import json
import os
import string
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.optim import RecipeError, load_recipe
from sparseml.optim.language.yaml_text import MAX_CHARACTERS

LETTERS = string.ascii_lowercase


def laughs(item: str) -> str:
    levels = [f"{LETTERS[0]}: &a {item}\n"]
    for one, two in itertools.pairwise(LETTERS[:12]):
        levels.append(f"{two}: &{two} {'[' + ', '.join([f'*{one}'] * 9) + ']'}\n")
    return "".join(levels)


def merges() -> str:
    levels = ["a: &a {x: 1}\n"]
    for one, two in itertools.pairwise(LETTERS[:14]):
        levels.append(f"{two}: &{two} {{<<: [{', '.join([f'*{one}'] * 9)}]}}\n")
    return "".join(levels)


HOSTILE = {
    "billion laughs": laughs("[x, x, x, x, x, x, x, x, x]"),
    "billion merges": merges(),
    "alias to itself": "a: &a [*a]\n",
    "alias to its parent": "a: &a {b: {c: *a}}\n",
    "chain of aliases": "a0: &a0 [1]\n"
    + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 500)),
    "deep lists": "[" * 100_000 + "\n",
    "deep mappings": "{a: " * 50_000 + "\n",
    "deep blocks": "".join(" " * i + "a:\n" for i in range(1000)),
    "dashes": "- " * 50_000 + "\n",
    "many keys": "".join(f"k{i}: {i}\n" for i in range(60_000)),
    "many items": "a:\n" + "- 1\n" * 60_000,
    "too long": "#" * (MAX_CHARACTERS + 1) + "\n",
    "long number": "a: " + "9" * 100_000 + "\n",
    "NUL": "a: \0\n",
    "control character": "a: \x07\n",
    "lone surrogate": "a: \ud800\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "tabs": "modifiers:\n\t- !EpochRangeModifier\n",
    "open quote": "a: 'b\n",
    "Python object": "a: !!python/object/apply:os.system [touch pwned]\n",
    "Python name": "a: !!python/name:os.system\n",
    "Python module": "a: !!python/module:this\n",
    "binary": "a: !!binary aGVsbG8=\n",
    "set": "a: !!set {b, c}\n",
    "wrong float": "a: !!float x\n",
    "float without a digit": "a: !!float\n",
    "key that is a list": "? [a, b]\n: 1\n",
    "merge of text": "a: {<<: b}\n",
    "unhashable alias key": "a: &a [1]\n*a : 2\n",
    "strange tag": "modifiers: [!<tag:x,2000:y> {}]\n",
    "empty tag": "modifiers: [! {}]\n",
    "twenty thousand variables in a circle": "".join(
        f"v{i}: eval(v{(i + 1) % 20_000})\n" for i in range(20_000)
    ),
    "multiplied variable": f"l: [{'1, ' * 20_000}]\nm: [{'eval(l), ' * 1_000}]\n",
}
EXPRESSIONS = (
    "9 ** 9 ** 9 ** 9", "9 ** 400 * 9 ** 400", "2.0 ** 99999", "(-8) ** 0.5", "1 / 0", "1j",
    "(" * 300 + "1" + ")" * 300, "-" * 900 + "1", "1 + " * 2000 + "1", "1 if 1 else 2", "1 < 2",
    "'a' * 9", "f'{1}'", "[1]", "(1, 2)", "{1}", "{1: 2}", "max(*[1])", "abs(**{})", "1 or 2",
    "int('9')", "(1).__class__", "abs.__self__", "__import__('os').system('touch pwned')",
    "open('pwned', 'w')", "exec('1')", "globals()", "getattr(1, 'real')", "x := 1", "1 << 9999999",
    "~1", "not 1", "1 and 2", "(yield)", "await x", "[].append(1)", "...", "None", "1; 2", "x = 1",
    "import os", "max(1, 2, key=abs)", "int(1e999)", "9 ** 300 * 9 ** 30", "round(1e999)",
)  # fmt: skip


def check(text: str, error_of: Callable[..., RecipeError]) -> RecipeError:
    begun = time.process_time()
    error = error_of(text)
    assert time.process_time() - begun < 5.0
    assert len(str(error)) < 400
    return error


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text(name: str, error_of: Any) -> None:
    check(HOSTILE[name], error_of)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_hostile_expressions(expression: str, error_of: Any) -> None:
    error = check(f"a: {json.dumps(f'eval({expression})')}\nmodifiers: []\n", error_of)
    assert isinstance(error, RuntimeError)
    assert error.line == 1


def test_nothing_is_opened_imported_or_run(
    error_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.yaml").write_text("a: 1\n")
    modules = set(sys.modules)
    done: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("open", "import", "exec", "os.system", "subprocess.Popen"):
            done.append(f"{event} {arguments[:1]}")

    watching = False
    sys.addaudithook(hook)
    texts = [
        "a: !!python/object/apply:os.system [touch pwned]\n",
        "a: !include secret.yaml\n",
        "a: eval(__import__('this'))\n",
        "a: eval(open('secret.yaml').read())\n",
        "modifiers: [!EpochRangeModifier {start_epoch: eval(exec('1')), end_epoch: 2}]\n",
    ]
    for text in texts:
        watching = True
        try:
            load_recipe(text, "toy")
        except RecipeError:
            pass
        else:
            raise AssertionError(text)
        finally:
            watching = False
    assert not done
    assert set(sys.modules) - modules == set()
    assert os.listdir(tmp_path) == ["secret.yaml"]


@given(st.text(max_size=200))
def test_any_text_loads_or_gives_a_recipe_error(text: str) -> None:
    try:
        load_recipe(f"{text}\n", "toy")
    except RecipeError as error:
        assert error.message


PIECES = """modifiers a b : ' " [ ] { } , - ? | > & * ! # % @ ` eval( ) 1 1e3 << ~ null --- +++
&a *a !EpochRangeModifier start_epoch end_epoch __metadata__ OBJECT.EpochRangeModifier"""
yaml_pieces = st.lists(st.sampled_from([*PIECES.split(), " ", "\n", "\t"]), max_size=30)


@given(yaml_pieces, st.sampled_from(["", " ", ": ", "\n", "\n  "]))
def test_any_mixture_of_yaml_loads_or_gives_a_recipe_error(pieces: list[str], glue: str) -> None:
    try:
        recipe = load_recipe(glue.join(pieces) + "\n", "toy")
    except RecipeError as error:
        assert error.message
    else:
        assert recipe.modifiers
