"""Fields that a modifier declares once, and the constructor that follows from them.

.. code-block:: python

    @declared_fields()
    class FreezingModifier(ScheduledModifier):
        '''Freezes layers.

        :param layers: their names
        :param thaw: whether they train again after the end
        '''

        layers: list[str] = field(as_names)  # required, checked, kept in _layers
        thaw: bool = field(as_flag, default=True)
        start_epoch: float = 0.0  # of the base class, with another default
        end_comparator: int = fixed(-1)  # for the base class, no argument of this one
        end_epoch: float = ignored(default=-1.0)  # accepted from old recipes, without effect

The arguments are those of decorated base classes, then those of the class in the order of its body;
one that is declared again keeps its place. The constructor gives to that of the base class what it
knows and sets the other fields, in order. At last it calls the method ``_set_up`` of the class if
there is one; that needs no ``super()``, as each constructor calls the one of its own class.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Literal, TypeVar

from typing_extensions import dataclass_transform

from sparseml.optim.props import BaseObject, ModifierProp
from sparseml.optim.types import SparsificationTypes

_DECLARED = "_declared_arguments"
_Class = TypeVar("_Class", bound=type)

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
    """Return a settable property; in an annotated line also an argument.

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


def accepted_arguments(classes: Iterable[type]) -> set[str]:
    """The arguments that a chain of constructors takes, each of which hands on what it does not."""
    accepted: set[str] = set()
    for clazz in classes:
        init = vars(clazz).get("__init__")
        if clazz is object or init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        accepted |= {p.name for p in named}
        if len(named) == len(parameters):
            break  # nothing is handed on to classes further up
    return accepted


@dataclass_transform(
    eq_default=False, field_specifiers=(field, new_field, argument, fixed, stated, ignored)
)
def declared_fields(
    *first: type, synonyms: Mapping[str, str] | None = None, hands_on: bool = False
) -> Callable[[_Class], _Class]:
    """Class decorator: make a constructor of the fields of a modifier.

    :param first: classes, decorated as well, whose fields come before those of the class
    :param synonyms: further arguments, None by default, and the fields that they are other names of
    :param hands_on: whether classes that follow in the order of inheritance get any other argument
    :raises TypeError: (by the decorator) for what is neither a field nor known to the base class,
        and for a class with a constructor of its own
    """

    def decorate(clazz: _Class) -> _Class:
        if "__init__" in vars(clazz):
            raise TypeError(f"{clazz.__name__} has a constructor of its own")
        declared = {}
        for group in first:
            declared.update(vars(group)[_DECLARED])
        for name, annotation in inspect.get_annotations(clazz).items():
            if name.startswith("_"):
                continue
            value = vars(clazz).get(name, REQUIRED)
            declared[name] = (annotation, value)
            if name in vars(clazz) and not isinstance(value, ModifierProp):
                delattr(clazz, name)  # or it would stand before the field of the base class
            if isinstance(value, NoProperty) and value.hidden:
                get = operator.attrgetter(f"_{name}")
                prop = ModifierProp(serializable=False, func_get=get)
                prop.__set_name__(clazz, name)
                setattr(clazz, name, prop)
        for name, prop in (item for group in first for item in vars(group).items()):
            if isinstance(prop, ModifierProp) and name not in vars(clazz):
                setattr(clazz, name, prop)
        for name, other in (synonyms or {}).items():
            declared[name] = (f"{declared[other][0]} | None", NoProperty(None))
        setattr(clazz, _DECLARED, declared)
        setattr(clazz, FIELD_GROUPS, first)
        if issubclass(clazz, BaseObject):
            clazz.__init__ = _constructor(clazz, synonyms or {}, hands_on)  # type: ignore[method-assign]
        return clazz

    return decorate


def _all_declared(clazz: type) -> dict[str, tuple[Any, Any]]:
    """Annotation and value of each argument, in order, since the last constructor by hand."""
    found: dict[str, tuple[Any, Any]] = {}
    for base in reversed(clazz.__mro__):
        declared = vars(base).get(_DECLARED)
        if declared is None and "__init__" in vars(base):
            found.clear()
        found.update(declared or {})
    return found


def _default(value: Any) -> Any:
    if isinstance(value, (Property, NoProperty)):
        return value.default
    return REQUIRED if isinstance(value, ModifierProp) else value


def _fields_for_all(clazz: type, names: Iterable[str]) -> dict[str, Any]:
    """The default of each of the arguments that base classes take for all that derive from them."""
    props = {name: inspect.getattr_static(clazz, name, None) for name in sorted(names)}
    return {
        name: prop.default
        for name, prop in props.items()
        if isinstance(prop, Property) and prop.for_all
    }


def _signature(
    declared: Mapping[str, tuple[Any, Any]], for_all: Mapping[str, Any], hands_on: bool
) -> inspect.Signature:
    receiver = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [
        receiver.replace(name=name, default=_default(value), annotation=annotation)
        for name, (annotation, value) in declared.items()
        if not isinstance(value, NoProperty) or value.accepted
    ]
    last = [Parameter(name, Parameter.KEYWORD_ONLY, default=v) for name, v in for_all.items()]
    rest = [Parameter("kwargs", Parameter.VAR_KEYWORD, annotation="Any")] if hands_on else []
    return inspect.Signature([receiver, *parameters, *last, *rest], return_annotation="None")


def _constructor(clazz: type, synonyms: Mapping[str, str], hands_on: bool) -> Callable[..., None]:
    declared, new = _all_declared(clazz), vars(clazz)[_DECLARED]
    known = accepted_arguments(clazz.__mro__[1:])
    signature = _signature(declared, _fields_for_all(clazz, known - declared.keys()), hands_on)
    special = {name: v for name, (_, v) in declared.items() if isinstance(v, NoProperty)}
    replaced = {name: v.default for name, v in special.items() if name in known and name in new}
    checked = special.keys() - (known - replaced.keys())
    checks = {name: v.check for name, v in special.items() if v.check and name in checked}
    fields = [name for name in declared if name not in known and name not in special]
    _require_sense(clazz, fields, [n for n in new if n in special and n not in known])
    set_up = vars(clazz).get("_set_up")

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}() {error}") from None
        bound.apply_defaults()
        values = bound.arguments
        rest = values.pop("kwargs") if hands_on else {}
        for name, check in checks.items():
            check(name, values[name])
        for name, other in synonyms.items():
            values[other] = values[other] if values[name] is None else values[name]
        handed_on = {name: value for name, value in values.items() if name in known}
        super(clazz, self).__init__(**{**handed_on, **replaced, **rest})  # type: ignore[arg-type]
        for name in fields:
            setattr(self, name, values[name])
        if set_up is not None:
            set_up(self)

    vars(__init__).update(__signature__=signature)
    __init__.__module__, __init__.__qualname__ = clazz.__module__, f"{clazz.__qualname__}.__init__"
    return __init__


def _require_sense(clazz: type, fields: list[str], special: list[str]) -> None:
    props = {name: inspect.getattr_static(clazz, name, None) for name in fields}
    wrong = [name for name, prop in props.items() if not isinstance(prop, ModifierProp)]
    values = vars(clazz)[_DECLARED]
    wrong += [name for name in special if not values[name][1].accepted]
    if wrong:
        raise TypeError(
            f"{', '.join(wrong)} of {clazz.__name__}: neither a field (with a check) nor an "
            "argument of its base class"
        )


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
