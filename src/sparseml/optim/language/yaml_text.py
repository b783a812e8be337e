"""YAML as recipes use it: safe, limited, and with numbers that look like numbers.

Beyond YAML 1.1, ``1e-3`` and ``1.5e3`` are numbers. Against it, ``2:4`` is text and not a number
to base 60, and dates are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from sparseml.optim.errors import RecipeSyntaxError, RecipeValueError
from sparseml.utils.written_number import WrittenCount, WrittenNumber

MAX_CHARACTERS = 1_000_000
MAX_NODES = 50_000
MAX_DEPTH = 40

# wide enough that nothing is folded onto a second line
_NO_WRAP = 2**31

_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_INT = re.compile(
    r"""^(?:[-+]?0b[0-1_]+
        |[-+]?0[0-7_]+
        |[-+]?(?:0|[1-9][0-9_]*)
        |[-+]?0x[0-9a-fA-F_]+)$""",
    re.VERBOSE,
)
_YAML_NUMBER = next(
    pattern
    for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers["1"]
    if tag == "tag:yaml.org,2002:float"
)
_NUMBER_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("float", "int", "timestamp"))

# libyaml reads about ten times as fast, where PyYAML was built with it
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RecipeLoader(_BaseLoader):
    """A safe loader with the numbers of recipes."""

    yaml_implicit_resolvers = {
        start: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBER_TAGS]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class RecipeDumper(yaml.SafeDumper):
    """A safe dumper that quotes what either this loader or PyYAML's own would misread."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # on one line, because lines of the dumped text are looked at one by one
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if len(text.splitlines()) > 1 else None
    )


RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
RecipeDumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
RecipeDumper.add_representer(str, _represent_text)
RecipeDumper.add_representer(
    WrittenNumber,
    lambda dumper, number: dumper.represent_scalar("tag:yaml.org,2002:float", str(number)),
)
RecipeDumper.add_representer(
    WrittenCount,
    lambda dumper, count: dumper.represent_scalar("tag:yaml.org,2002:float", str(count)),
)
for _dumper in (yaml.Dumper, yaml.SafeDumper):  # that knows only exact types
    _dumper.add_representer(
        WrittenNumber, lambda dumper, number: dumper.represent_float(float(number))
    )
    _dumper.add_representer(WrittenCount, lambda dumper, count: dumper.represent_int(int(count)))


def is_yaml_number(text: str) -> bool:
    """Return whether a float is one in YAML 1.1 too, where ``1e-3`` and ``1.5e3`` are text."""
    return _YAML_NUMBER.match(text) is not None


def dump(container: Any, one_line: bool = False) -> str:
    """Return plain data as YAML.

    :param one_line: in flow style without a line break; otherwise in block style, keys sorted
    """
    text: str = yaml.dump(
        container,
        Dumper=RecipeDumper,
        default_flow_style=one_line,
        sort_keys=not one_line,
        width=_NO_WRAP,
    )
    return text.removesuffix("...\n").rstrip("\n") if one_line else text


@contextmanager
def syntax_errors(text: str, file: str | None = None, first_line: int = 1) -> Iterator[None]:
    """Turn PyYAML's errors into recipe errors.

    :param file: the file that is read, None for raw text
    :param first_line: the line of the file at which the YAML begins
    """
    try:
        yield
    except UnicodeEncodeError as err:
        raise RecipeSyntaxError(f"not valid text: {err.reason}", file=file) from err
    except yaml.YAMLError as err:
        if isinstance(err, RecipeSyntaxError):
            raise
        mark = getattr(err, "problem_mark", None) or getattr(err, "context_mark", None)
        parts = (getattr(err, "context", None), getattr(err, "problem", None))
        problem = ", ".join(part for part in parts if part) or str(err).splitlines()[0]
        if mark and "\t" in "".join(text.splitlines()[mark.line :][:1])[: mark.column + 1]:
            problem += " (there is a tab; indent with spaces)"
        elif "block" in (parts[0] or ""):
            problem += " (is the line indented as those that it belongs to?)"
        raise RecipeSyntaxError(
            f"not valid YAML: {problem}",
            file=file,
            line=mark.line + first_line if mark else None,
            column=mark.column + 1 if mark else None,
        ) from err


def _check_limits(text: str, file: str | None, first_line: int) -> None:
    depth = nodes = 0
    for event in yaml.parse(text, Loader=RecipeLoader):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            limit = f"nested more than {MAX_DEPTH} deep" if depth > MAX_DEPTH else "too long"
            mark: Any = event.start_mark
            raise RecipeValueError(
                f"the recipe is {limit}",
                file=file,
                line=mark.line + first_line,
                column=mark.column + 1,
            )


def compose(text: str, file: str | None = None, first_line: int = 1) -> yaml.Node | None:
    """Return the node graph of a text; None if there is nothing in it.

    :raises RecipeSyntaxError: if it is not YAML, or several documents
    :raises RecipeValueError: if it exceeds a limit
    """
    if len(text) > MAX_CHARACTERS:
        size = f"{len(text)} characters, at most {MAX_CHARACTERS} are allowed"
        raise RecipeValueError(f"the recipe is too long: {size}", file=file)
    with syntax_errors(text, file, first_line):
        _check_limits(text, file, first_line)
        node: yaml.Node | None = yaml.compose(text, Loader=RecipeLoader)
    return node
