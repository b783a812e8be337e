"""Settings from the command line and from configuration files."""

from __future__ import annotations

import argparse
import ast
import types
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from sparseml.run.errors import RunError
from sparseml.run.settings.config import read_config
from sparseml.run.settings.flags import Leaf, Settings, leaves

__all__ = ["parse", "parser_for", "with_dashes"]

_Settings = TypeVar("_Settings", bound=Settings)


def with_dashes(argv: Sequence[str]) -> list[str]:
    """Return arguments with dashes for underscores in names of flags: ``--data_dir`` also works."""
    return [_dashed(text) if text.startswith("--") else text for text in argv]


def parser_for(
    kind: type[Settings], description: str = "", prog: str | None = None
) -> ArgumentParser:
    """Return a parser with a flag for each setting."""
    parser = ArgumentParser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        formatter_class=RawDescriptionHelpFormatter,
    )
    hints, targets = get_type_hints(kind), {"": parser}
    for leaf in leaves(kind):
        if leaf.group not in targets:
            owner = hints[leaf.group]
            titled: Any = parser
            if owner.TITLE:
                titled = parser.add_argument_group(owner.TITLE, owner.DESCRIPTION)
            targets[leaf.group] = titled
        targets[leaf.group].add_argument(*leaf.flag.options(leaf.name), **_keywords(leaf))
    return parser


def parse(
    kind: type[_Settings],
    argv: Sequence[str],
    ignored: Mapping[str, Any] | None = None,
    description: str = "",
    prog: str | None = None,
) -> _Settings:
    """Return the settings that arguments give.

    With a flag ``--config``, the YAML file it names gives defaults for the others. A setting there
    that no flag takes must be off (false, 0, empty), as timm's files list all that timm has.

    :param ignored: settings of such files that change nothing here
    :raises RunError: for a file that cannot be used, with the nearest names of flags, and for
        numbers out of range
    """
    argv = with_dashes(argv)
    parser = parser_for(kind, description, prog)
    finder = ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("-c", "--config")
    file = finder.parse_known_args(argv)[0].config
    if file:
        parser.set_defaults(**read_config(parser, file, ignored or {}))
    found = parser.parse_args(argv)
    for leaf in leaves(kind):
        _require_within_limits(leaf, getattr(found, leaf.name))
    return _settings(kind, found, _given(parser, argv))


class _KeyValues(argparse.Action):
    """Takes ``key=value ...``: literals of Python, anything else as text."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None
    ) -> None:
        found: dict[str, Any] = {}
        for text in filter(None, values):
            key, separator, value = text.partition("=")
            if not separator:
                raise argparse.ArgumentError(self, f"must be key=value, found {text!r}")
            try:
                found[key] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                found[key] = value
        setattr(namespace, self.dest, found)


def _keywords(leaf: Leaf) -> dict[str, Any]:
    kind, entry = _type_of(leaf.kind), leaf.flag
    keywords: dict[str, Any] = {"dest": leaf.name, "help": entry.help}
    keywords |= {"required": True} if leaf.default is MISSING else {"default": leaf.default}
    if kind is bool:
        return keywords | {
            "action": argparse.BooleanOptionalAction if entry.paired else "store_true"
        }
    if kind is dict:
        keywords |= {"action": _KeyValues, "nargs": "*"}
    elif kind is not str:
        keywords["type"] = kind
    given = {"metavar": entry.metavar, "choices": entry.choices, "nargs": entry.nargs}
    return keywords | {key: value for key, value in given.items() if value is not None}


def _type_of(hint: Any) -> Any:
    """Return the type of one value: that of the elements of a sequence, without None."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    outer = get_origin(hint)
    if outer is dict:
        return dict
    return hint if outer is None else get_args(hint)[0]


def _require_within_limits(leaf: Leaf, value: Any) -> None:
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            allowed = leaf.flag.broken_limit(number)
            if allowed is not None:
                options = leaf.flag.options(leaf.name)
                name = next(option for option in options if option.startswith("--"))
                raise RunError(f"{name} must be {allowed}, found {number}")


def _settings(kind: type[_Settings], found: Namespace, given: frozenset[str]) -> _Settings:
    values: dict[str, dict[str, Any]] = defaultdict(dict)
    for leaf in leaves(kind):
        values[leaf.group][leaf.name] = getattr(found, leaf.name)
    own, hints = values.pop("", {}), get_type_hints(kind)
    groups = {name: hints[name](**content) for name, content in values.items()}
    return kind(**own, **groups, given=given)


def _given(parser: ArgumentParser, argv: Sequence[str]) -> frozenset[str]:
    flags = {option: action.dest for action in parser._actions for option in action.option_strings}
    names = {text.partition("=")[0] for text in argv if text.startswith("-")}
    return frozenset(flags[name] for name in names if name in flags)


def _dashed(text: str) -> str:
    name, separator, value = text.partition("=")
    return name.replace("_", "-") + separator + value
