"""Configuration files: YAML that gives defaults for flags."""

from __future__ import annotations

from argparse import Action, ArgumentParser, BooleanOptionalAction
from collections.abc import Container
from pathlib import Path
from typing import Any

from sparseml.run.errors import RunError, one_line
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = ["config_keys", "read_config"]


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
    for key, value in _content(file).items():
        name = str(key).replace("-", "_")
        action = keys.get(name)
        if action is None:
            if value and name not in others:
                hint = did_you_mean(str(key), keys)
                unknown.append(f"there is no setting {key!r} (found {value!r}){hint}")
        elif value is not None and (value != "" or "" in (action.choices or ())):
            settings[action.dest] = _converted(action, value, name, file)
            action.required = False
    if unknown:
        raise RunError(f"--config {file}: {'; '.join(unknown)}")
    return settings


def _content(file: str) -> dict[Any, Any]:
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
