"""What the fields of a modifier are declared with; see :mod:`sparseml.optim.declared_fields`."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sparseml.optim.props import ModifierProp
from sparseml.optim.types import SparsificationTypes

__all__ = [
    "FIELD_GROUPS",
    "REQUIRED",
    "Check",
    "NoProperty",
    "Property",
    "argument",
    "described_arguments",
    "described_fields",
    "field",
    "fixed",
    "for_all",
    "ignored",
    "new_field",
    "of_types",
    "stated",
]

FIELD_GROUPS = "_field_groups"
"""Where a class notes the groups of fields that it was declared with."""

REQUIRED = inspect.Parameter.empty
"""In place of a default: there is none."""

Check = Callable[[str, Any], Any]
"""Given the name of a field and a value, returns the value to keep, or raises."""


class Property(ModifierProp):
    """A property kept in ``_<name>``, described by the docstring of its class."""

    def __init__(
        self,
        check: Check | None = None,
        default: Any = REQUIRED,
        unset: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.check, self.default, self._unset = check, default, unset
        self.for_all = False

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        self.__doc__ = self.__doc__ or described_arguments(owner).get(name)
        if self.check is not None:
            self._kept = operator.attrgetter(f"_{name}")
            self._func_get, self._func_set = self._shown, self._keep

    def _shown(self, modifier: Any) -> Any:
        kept = self._kept(modifier)
        return self._unset(modifier) if kept is None and self._unset else kept

    def _keep(self, modifier: Any, value: Any) -> None:
        assert self.check is not None
        kept = None if value is None and self._unset else self.check(self._name, value)
        setattr(modifier, f"_{self._name}", kept)


@dataclass(frozen=True)
class NoProperty:
    """An argument of the constructor of this class, of its base class, or of both."""

    default: Any
    check: Check | None = None
    accepted: bool = True
    hidden: bool = False


def field(
    check: Check,
    *,
    default: Any = REQUIRED,
    unset: Callable[[Any], Any] | None = None,
    doc: str | None = None,
    serializable: bool = True,
) -> Any:
    """
    Return a settable property; in an annotated line also an argument.

    :param default: without it the argument is required
    :param unset: what the property of a modifier is while None is kept, which is not checked
    :param doc: what it is, by default what the class's docstring says of ``:param <name>:``
    :param serializable: whether recipes show it
    """
    return Property(check, default, unset, serializable=serializable, doc=doc)


def new_field(check: Check, *, default: Any) -> Any:
    """Return a field that SparseML 1.x does not have: recipes show it unless it is the default."""
    return Property(check, default, no_serialize_val=default)


def for_all(check: Check, *, default: Any) -> Any:
    """Return what :func:`new_field` does, for a base class that takes it by keyword.

    All classes with declared fields that derive from it take it, too, as their last argument.
    """
    prop = Property(check, default, no_serialize_val=default)
    prop.for_all = True
    return prop


def argument(check: Check, *, default: Any = REQUIRED) -> Any:
    """Return an argument that is checked, and not kept."""
    return NoProperty(default, check)


def fixed(value: Any, *, init: Literal[False] = False) -> Any:
    """Return what the base class gets instead of an argument."""
    return NoProperty(value, accepted=False)


def stated(*, default: Any, why: str) -> Any:
    """Return what :func:`fixed` does; an argument is accepted if it is just this value.

    No recipe shows it, and nobody can set it.

    :param why: the reason that it is fixed
    :raises ValueError: (by the constructor) naming the reason, for any other argument
    """

    def check(name: str, value: Any) -> None:
        if value != default:
            raise ValueError(f"{name} is always {default!r}, found {value!r}: {why}")

    return NoProperty(default, check, hidden=True)


def ignored(*, default: Any) -> Any:
    """Return what :func:`fixed` does; an argument is accepted for the sake of old recipes."""
    return NoProperty(default)


def of_types(*types: SparsificationTypes) -> ModifierProp:
    """Return the property ``sparsification_types``: what a modifier does to a model."""
    doc = f"What the modifier does: {', '.join(kind.value for kind in types)}."
    return ModifierProp(serializable=False, func_get=lambda _: list(types), doc=doc)


def described_arguments(clazz: type) -> dict[str, str]:
    """Return what the docstring of a class says of the arguments, by ``:param <name>:``."""
    found: dict[str, str] = {}
    _, *texts = inspect.cleandoc(clazz.__doc__ or "").split("\n:param ")
    for text in texts:
        name, _, meaning = text.partition(":")
        found[name] = " ".join(meaning.partition("\n:")[0].partition("\n\n")[0].split())
    return found


def described_fields(clazz: type) -> dict[str, str]:
    """Return what a class, its bases and its groups of fields say of the arguments."""
    found: dict[str, str] = {}
    for base in reversed(clazz.__mro__):
        for described in (*vars(base).get(FIELD_GROUPS, ()), base):
            found.update(described_arguments(described))
    return found
