"""Configuration files: YAML that gives defaults for flags."""

from __future__ import annotations

from argparse import Action, ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparseml.run.errors import RunError, one_line
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = ["config_keys", "read_config"]


def config_keys(parser: ArgumentParser) -> dict[str, str]:
    """Return key of a configuration file → name of the setting; aliases of flags are keys, too."""
    names = {action.dest: action.dest for action in parser._actions}
    aliases = {
        option.lstrip("-").replace("-", "_"): action.dest
        for action in parser._actions
        for option in action.option_strings
    }
    return {**aliases, **names}


def read_config(parser: ArgumentParser, file: str, ignored: Mapping[str, Any]) -> dict[str, Any]:
    """Return name → value of a file, none of which is required any more.

    :param ignored: keys that no flag takes, but that change nothing
    :raises RunError: for a file that cannot be read, an unknown key, and a value of another type
    """
    known, keys = {action.dest: action for action in parser._actions}, config_keys(parser)
    settings = {}
    for key, value in _content(file).items():
        if str(key) in keys:
            name = keys[str(key)]
            settings[name] = _converted(known[name], value, file)
        elif value and key not in ignored:
            hint = did_you_mean(str(key), known)
            raise RunError(f"--config {file}: there is no setting {key!r} (found {value!r}){hint}")
    for name in settings:
        known[name].required = False
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


def _converted(action: Action, value: Any, file: str) -> Any:
    kind = action.type
    name = f"--config {file}: {action.dest}"
    if action.nargs == 0 and value is not None and not isinstance(value, bool):
        raise RunError(f"{name} must be true or false, found {value!r}")
    if action.choices is not None and value not in (None, *action.choices):
        allowed = quoted_list([str(choice) for choice in action.choices])
        raise RunError(f"{name} must be {allowed}, found {value!r}")
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise RunError(f"{name} must be a whole number, found {value!r}")
    if value is None or not callable(kind) or isinstance(value, (list, dict)):
        return value
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise RunError(
            f"{name} must be of type {getattr(kind, '__name__', kind)}, found {value!r}"
        ) from error
