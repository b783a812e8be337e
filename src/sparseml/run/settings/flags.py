"""Settings as dataclasses: all that is to be known about one stands beside its field.

The flags of the command line, the keys of configuration files, the check of ranges and the check
on resuming follow from the fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal, get_type_hints

Changes = Literal["nothing", "result", "optimizer"]
"""What depends on a setting: neither weights nor masks; these; or even the kind of state that an
optimizer has, which another value cannot take over."""

_KEY = "flag"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """How a setting is given, and which values it may have.

    :param names: option strings, in place of ``--`` and the name of the field with dashes
    :param also: more option strings
    :param nargs: as in ``argparse``, for a sequence
    :param paired: also give a flag ``--no-...``, to a bool
    :param alone: take the one argument that stands without the name of a flag
    :param at_least: bounds of numbers, also of each in a sequence; None is always allowed
    :param above: the number must be greater, and finite
    :param changes: what depends on the setting, which matters when a run is resumed
    """

    help: str | None = None
    names: Sequence[str] = ()
    also: Sequence[str] = ()
    metavar: str | tuple[str, ...] | None = None
    choices: Sequence[str] | None = None
    nargs: int | str | None = None
    paired: bool = False
    alone: bool = False
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    changes: Changes = "result"

    def options(self, name: str) -> list[str]:
        """Return the option strings of a setting called ``name``, the short ones first."""
        names = [*(self.names or (f"--{name.replace('_', '-')}",)), *self.also]
        return sorted(names, key=lambda option: option.startswith("--"))

    def broken_limit(self, value: Any) -> str | None:
        """Return what a number must be, if this one is not; None for all that may be."""
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        if self.above is not None:
            return None if self.above < value < math.inf else f"greater than {self.above}"
        if self.below is not None:
            within = low <= value < self.below
            return None if within else f"at least {low} and less than {self.below}"
        if (self.at_least is None and self.at_most is None) or low <= value <= high:
            return None
        return f"at least {low}" if high == math.inf else f"from {low} to {high}"


def flag(default: Any = MISSING, help: str | None = None, **more: Any) -> Any:
    """Return the field of a setting, which its annotation gives the type.

    :param default: a setting without one must be given
    :param more: of :class:`Flag`
    """
    metadata = {_KEY: Flag(help=help, **more)}
    if isinstance(default, (dict, list)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def harmless(default: Any = MISSING, help: str | None = None, **more: Any) -> Any:
    """Return the :func:`flag` of a setting that neither weights nor masks depend on."""
    return flag(default, help, **more, changes="nothing")


class Group:
    """Settings that belong together: the base of dataclasses whose fields are flags.

    :cvar TITLE: of the group in the help, none for those that stand alone
    """

    TITLE: ClassVar[str] = ""
    DESCRIPTION: ClassVar[str | None] = None


@dataclass(kw_only=True)
class Settings:
    """All settings of a run: a dataclass whose fields are flags and groups of flags.

    :cvar DEFAULTS: name → default, in place of that of its group
    :param given: names of the settings that were given on the command line
    """

    DEFAULTS: ClassVar[Mapping[str, Any]] = {}

    config: str | None = harmless(
        None, "YAML of defaults for all flags", also=("-c",), metavar="FILE"
    )
    given: frozenset[str] = frozenset()

    def values(self, *changing: Changes) -> dict[str, Any]:
        """Return name → value, of all settings or of those that change one of ``changing``."""
        return {
            leaf.name: getattr(getattr(self, leaf.group) if leaf.group else self, leaf.name)
            for leaf in leaves(type(self))
            if not changing or leaf.flag.changes in changing
        }

    def flags_given(self, group: str, *but: str) -> str:
        """Return, for a message, the flags of a group that were given on the command line.

        :param but: names of settings to leave out
        """
        names = {leaf.name for leaf in leaves(type(self)) if leaf.group == group}
        found = sorted(names & self.given - {*but})
        return ", ".join(f"--{name.replace('_', '-')}" for name in found)


@dataclass(frozen=True)
class Leaf:
    """One setting among all of a run.

    :param group: the field of its group, empty for one without
    :param kind: its annotation
    """

    name: str
    group: str
    kind: Any
    default: Any
    flag: Flag


def leaves(kind: type[Settings]) -> tuple[Leaf, ...]:
    """Return the settings of a run, in the order of their fields."""
    found: list[Leaf] = []
    hints = get_type_hints(kind)
    for entry in fields(kind):
        hint: Any = hints[entry.name]
        in_group = isinstance(hint, type) and issubclass(hint, Group)
        types = get_type_hints(hint) if in_group else hints
        for one in fields(hint) if in_group else (entry,):
            if _KEY not in one.metadata:
                continue
            default: Any = one.default
            if one.default_factory is not MISSING:
                default = one.default_factory()
            default = kind.DEFAULTS.get(one.name, default)
            group = entry.name if in_group else ""
            found.append(Leaf(one.name, group, types[one.name], default, one.metadata[_KEY]))
    return tuple(found)
