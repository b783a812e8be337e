"""Settings from the command line and from configuration files."""

from __future__ import annotations

import argparse
import ast
import logging
import re
import types
from argparse import Action, ArgumentParser, BooleanOptionalAction, Namespace
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from sparseml.run.errors import RunError, one_line
from sparseml.run.settings.flags import Leaf, Settings, leaves
from sparseml.utils.text import did_you_mean, few, quoted_list, shortened

_LOGGER = logging.getLogger(__name__)
_Settings = TypeVar("_Settings", bound=Settings)


def with_dashes(argv: Sequence[str]) -> list[str]:
    """Return arguments with dashes for underscores in names of flags: ``--data_dir`` also works."""
    return [re.sub("^--[^=]+", lambda name: name[0].replace("_", "-"), text) for text in argv]


def parser_for(
    kind: type[Settings],
    description: str = "",
    prog: str | None = None,
    examples: Sequence[str] = (),
) -> ArgumentParser:
    """Return a parser with a flag for each setting.

    :param examples: flags of calls, for the end of the help
    """
    parser = _Parser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    hints, targets = get_type_hints(kind), {"": parser}
    every = leaves(kind)
    for leaf in every:
        if leaf.group not in targets:
            owner = hints[leaf.group]
            titled: Any = parser
            if owner.TITLE:
                titled = parser.add_argument_group(owner.TITLE, owner.DESCRIPTION)
            targets[leaf.group] = titled
        targets[leaf.group].add_argument(*leaf.flag.options(leaf.name), **_keywords(leaf))
    needed = [_needed(leaf) for leaf in every if leaf.default is MISSING]
    parser.usage = " ".join(["%(prog)s", *needed, "[--flag VALUE ...]"])
    if examples:
        parser.epilog = "\n  ".join(["examples:", *(f"{parser.prog} {one}" for one in examples)])
    return parser


def parse(
    kind: type[_Settings],
    argv: Sequence[str],
    ignored: Mapping[str, Any] | None = None,
    description: str = "",
    prog: str | None = None,
    *,
    examples: Sequence[str] = (),
    files_of: type[Settings] | None = None,
) -> _Settings:
    """Return the settings that arguments give.

    With a flag ``--config``, the YAML file it names gives defaults for the others. A setting there
    that no flag takes must be off (false, 0, empty).

    :param ignored: name → default of flags that scripts have which people come from, but that have
        no effect here. They are taken, also from files; one warning lists those that are given
    :param files_of: another kind of run, whose files may be given, too
    :raises RunError: for a file that cannot be used, with the nearest names of flags, and for
        numbers out of range
    """
    argv = with_dashes(argv)
    parser = parser_for(kind, description, prog, examples)
    own = config_keys(parser)
    inert = {name: default for name, default in (ignored or {}).items() if name not in own}
    for name, default in inert.items():
        _add_inert(parser, name, default)
    finder = ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("-c", "--config")
    if file := finder.parse_known_args(argv)[0].config:
        others = config_keys(parser_for(files_of)) if files_of else ()
        parser.set_defaults(**read_config(parser, file, others))
    argv = _with_named(parser, kind, argv)
    found = parser.parse_known_args(argv)[0]  # what else there is has been named
    for leaf in leaves(kind):
        _require_text(leaf, getattr(found, leaf.name))
        _require_within_limits(leaf, getattr(found, leaf.name))
    _tell_inert(inert, found)
    return _settings(kind, found, _given(parser, argv))


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # the usage of a hundred flags would hide it
        self.exit(2, f"error: {message}; {self.prog} --help lists all flags\n")


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


def _with_named(parser: ArgumentParser, kind: type[Settings], argv: Sequence[str]) -> Sequence[str]:
    """Return arguments in which what stands alone is given to the flag that may be left out."""
    needed = [action for action in parser._actions if action.required]
    for action in needed:
        action.required = False
    found, rest = parser.parse_known_args(argv)
    for action in needed:
        action.required = True
    names = [
        name for a in parser._actions if a.help != argparse.SUPPRESS for name in a.option_strings
    ]
    unknown = [text.partition("=")[0] for text in rest if text.startswith("-")]
    taking = next((leaf for leaf in leaves(kind) if leaf.flag.alone), None)
    if unknown or len(rest) > 1 or (rest and taking is None):
        hints = "".join(did_you_mean(name, names) for name in unknown[:3])
        parser.error(f"unrecognized arguments: {few(unknown or rest, 8, ' ')}{hints}")
    if not rest or taking is None:
        return argv
    option, given = _name(taking), getattr(found, taking.name)
    if taking.name in _given(parser, argv) and Path(given) != Path(rest[0]):
        raise RunError(f"{option} is given twice: {given}, and {rest[0]} without its name")
    return [option, rest[0], *argv]


def _add_inert(parser: ArgumentParser, name: str, default: Any) -> None:
    keywords: dict[str, Any] = {"nargs": "?", "const": True}
    if isinstance(default, bool):
        keywords = {"action": "store_true"}
    elif isinstance(default, list):
        keywords = {"nargs": "*"}
    option = f"--{name.replace('_', '-')}"
    parser.add_argument(option, dest=name, default=default, help=argparse.SUPPRESS, **keywords)


def _tell_inert(inert: Mapping[str, Any], found: Namespace) -> None:
    told = []
    for name, default in inert.items():
        value = getattr(found, name)
        if value and value not in ("0", "0.0") and str(value) != str(default):
            words = value if isinstance(value, list) else [str(value)]
            told.append(f"{name} {few(words, 8, ' ')}")
    if told:
        _LOGGER.warning("without effect here: %s", few(told, 12))


def _keywords(leaf: Leaf) -> dict[str, Any]:
    kind, entry = _type_of(leaf.kind), leaf.flag
    help = entry.help
    if help and kind is not bool and leaf.default not in (MISSING, None, "") and "[" not in help:
        help += " (default: %(default)s)" if leaf.default else ""
    keywords: dict[str, Any] = {"dest": leaf.name, "help": help}
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


def _require_text(leaf: Leaf, value: Any) -> None:
    for text in value if isinstance(value, (list, tuple)) else [value]:
        # what is no UTF-8 on the command line cannot be written into the files of a run
        if isinstance(text, (str, Path)) and not str(text).isascii():
            try:
                str(text).encode()
            except UnicodeEncodeError as error:
                raise RunError(f"{_name(leaf)} must be UTF-8, found {str(text)!a}") from error


def _require_within_limits(leaf: Leaf, value: Any) -> None:
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            allowed = leaf.flag.broken_limit(number)
            if allowed is not None:
                raise RunError(f"{_name(leaf)} must be {allowed}, found {number}")


def _name(leaf: Leaf) -> str:
    """Return the long name of a flag."""
    options = leaf.flag.options(leaf.name)
    return next(option for option in options if option.startswith("--"))


def _needed(leaf: Leaf) -> str:
    """Return a flag that must be given, as the usage has it."""
    metavar = str(leaf.flag.metavar or leaf.name.upper())
    return metavar if leaf.flag.alone else f"{_name(leaf)} {metavar}"


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


def config_keys(parser: ArgumentParser) -> dict[str, Action]:
    """Return key of a configuration file → flag; aliases of flags are keys, too."""
    actions = [action for action in parser._actions if action.dest != "help"]
    aliases = {
        option.lstrip("-").replace("-", "_"): action
        for action in actions
        for option in action.option_strings
    }
    return {**aliases, **{action.dest: action for action in actions}}


def read_config(parser: ArgumentParser, file: str, others: Container[str] = ()) -> dict[str, Any]:
    """Return name → value of a file, none of which is required any more.

    A value that is null, or an empty text where that is no choice, is as good as none.

    :param others: keys that no flag takes, but that may be there
    :raises RunError: for a file that cannot be read, for all unknown keys at once unless they are
        off (false, 0, empty), and for a value of another type
    """
    keys = config_keys(parser)
    settings, unknown = {}, []
    for key, value in config_content(file).items():
        name = str(key).replace("-", "_")
        action = keys.get(name)
        if action is None:
            if value and name not in others:
                hint = did_you_mean(str(key), keys)
                unknown.append(f"there is no setting {key!r} (found {shortened(value)}){hint}")
        elif value is not None and (value != "" or "" in (action.choices or ())):
            settings[action.dest] = _converted(action, value, name, file)
            action.required = False
    if unknown:
        raise RunError(f"--config {file}: {few(unknown, 8, '; ')}")
    return settings


def config_content(file: str) -> dict[Any, Any]:
    """Return key → value of a file.

    :raises RunError: if it cannot be read
    """
    import yaml  # here, as the help of a command needs none

    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise RunError(f"--config {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"--config {file} is no YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise RunError(
            f"--config {file} must map names to values, found a {type(content).__name__}"
        )
    return content


def _converted(action: Action, value: Any, key: str, file: str) -> Any:
    """Return what the flag itself would have made of the value."""
    name = f"--config {file}: {key}"
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise RunError(f"{name} must be true or false, found {value!r}")
        negated = isinstance(action, BooleanOptionalAction) and key.startswith("no_")
        return value is not negated
    if isinstance(action.default, dict):
        if not isinstance(value, dict):
            raise RunError(f"{name} must map names to values, found {value!r}")
        return value
    if action.nargs in (None, "?"):
        return _one(action, value, name)
    values = value if isinstance(value, list) else [value]
    if isinstance(action.nargs, int) and len(values) != action.nargs:
        raise RunError(f"{name} must be a list of {action.nargs}, found {value!r}")
    return [_one(action, one, name) for one in values]


def _one(action: Action, value: Any, name: str) -> Any:
    kind: Any = action.type or str
    if action.choices is not None and value not in action.choices:
        allowed = quoted_list([str(choice) for choice in action.choices])
        raise RunError(f"{name} must be {allowed}, found {value!r}")
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise RunError(f"{name} must be a whole number, found {value!r}")
    try:
        if isinstance(value, (bool, list, dict)):
            raise TypeError
        return kind(value)
    except (TypeError, ValueError) as error:
        raise RunError(f"{name} must be of type {kind.__name__}, found {value!r}") from error
