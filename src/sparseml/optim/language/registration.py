"""Which class a tag of a recipe stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

# once known to every recipe, now without a meaning
IGNORED_FIELDS = frozenset({"log_types"})

ClassT = TypeVar("ClassT", bound=type)
SwapClass = Callable[[dict[str, Any]], type]


def tag_of(clazz: type, framework: str | None = None) -> str:
    """Return the YAML tag of a class, ``!Class`` or ``!framework.Class``."""
    return f"!{framework}.{clazz.__name__}" if framework else f"!{clazz.__name__}"


@dataclass(frozen=True)
class Registration:
    """A class known to recipes; ``swap_class`` chooses another one by the fields of a recipe."""

    clazz: type
    swap_class: SwapClass | None = None

    def class_for(self, fields: dict[str, Any]) -> type:
        """Return the class that ``fields`` are meant for."""
        return self.swap_class(fields) if self.swap_class else self.clazz

    def build(self, fields: dict[str, Any]) -> Any:
        """Return an instance made of the fields of a recipe."""
        kept = {key: value for key, value in fields.items() if key not in IGNORED_FIELDS}
        return self.class_for(kept)(**kept)


_REGISTRY: dict[str, dict[str, Registration]] = {}


def registered_modifiers(framework: str) -> dict[str, Registration]:
    """Return the classes known to recipes of a framework, by name; not to be changed."""
    return _REGISTRY.get(framework, {})


def _constructor(registration: Registration) -> Callable[[Any, yaml.Node], Iterator[Any]]:
    def construct(loader: Any, node: yaml.Node) -> Iterator[Any]:
        fields = (
            loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else {}
        )
        yield registration.build(fields)

    return construct


def ModifierYAML(
    framework: str, swap_class_by_state_fn: SwapClass | None = None
) -> Callable[[ClassT], ClassT]:
    """Class decorator that makes a modifier known to recipes.

    ``!Class`` in a recipe of ``framework``, and ``!framework.Class`` in any YAML read by PyYAML's
    default or safe loader, then stand for an instance of the class.

    :param swap_class_by_state_fn: called with the fields; returns the class to make instead
    :raises ValueError: without a framework
    """
    if not framework:
        raise ValueError(f"a framework is required, found {framework!r}")

    def register(clazz: ClassT) -> ClassT:
        registration = Registration(clazz, swap_class_by_state_fn)
        _REGISTRY.setdefault(framework, {})[clazz.__name__] = registration
        tag, constructor = tag_of(clazz, framework), _constructor(registration)
        yaml.add_constructor(tag, constructor)
        yaml.add_constructor(tag, constructor, Loader=yaml.SafeLoader)
        return clazz

    return register
