"""What modifiers are made of: constructors that end somewhere, properties that recipes show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, overload

from sparseml.utils.text import few

Getter = Callable[[Any], Any]
Setter = Callable[[Any, Any], None]


class BaseObject:
    """The end of every chain of ``super().__init__(**kwargs)``; a ValueError for what is left."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        if kwargs:
            raise ValueError(
                f"unknown arguments for {type(self).__name__}: {few(sorted(kwargs), 8)}"
            )


class BaseProp(ABC):
    """A descriptor in the manner of ``property``; it cannot be deleted."""

    @abstractmethod
    def __get__(self, obj: Any, objtype: type | None = None) -> Any: ...

    @abstractmethod
    def __set__(self, obj: Any, value: Any) -> None: ...

    def __delete__(self, obj: Any) -> None:
        raise AttributeError("a modifier's property cannot be deleted")

    @abstractmethod
    def getter(self, func_get: Getter) -> BaseProp:
        """A copy with another getter."""

    @abstractmethod
    def setter(self, func_set: Setter) -> BaseProp:
        """A copy with another setter."""


class ModifierProp(BaseProp):
    """A field of a modifier.

    Used as a decorator: ``@ModifierProp()`` above the getter, then ``@name.setter`` above the
    setter.

    :param serializable: whether the property is written into recipes
    :param restrict_initialized: freeze it once the modifier is initialized
    :param restrict_enabled: freeze it while the modifier is enabled
    :param restrict_extras: names of further attributes that freeze it while they are true
    :param no_serialize_val: the value for which it is left out of recipes
    :param func_get: the getter, as ``func_set`` the setter, if not given by decoration
    :param doc: the docstring, by default the getter's
    :ivar restrictions: names of the attributes that freeze the property while they are true
    """

    def __init__(
        self,
        serializable: bool = True,
        restrict_initialized: bool = True,
        restrict_enabled: bool = False,
        restrict_extras: list[str] | None = None,
        no_serialize_val: Any = None,
        func_get: Getter | None = None,
        func_set: Setter | None = None,
        doc: str | None = None,
    ) -> None:
        self.serializable = serializable
        self.restrictions = [
            *(["_initialized"] if restrict_initialized else []),
            *(["_enabled"] if restrict_enabled else []),
            *(restrict_extras or []),
        ]
        self.no_serialize_val = no_serialize_val
        self._func_get = func_get
        self._func_set = func_set
        self._name = "the property"
        if doc is None and func_get is not None:
            doc = func_get.__doc__
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __call__(self, func_get: Getter) -> ModifierProp:
        """A copy with the getter."""
        return self.getter(func_get)

    @overload
    def __get__(self, obj: None, objtype: type | None = None) -> ModifierProp: ...

    @overload
    def __get__(self, obj: object, objtype: type | None = None) -> Any: ...

    def __get__(self, obj: Any, objtype: type | None = None) -> Any:
        if obj is None:
            return self
        if self._func_get is None:
            raise AttributeError(f"{self._name} cannot be read")
        return self._func_get(obj)

    def __set__(self, obj: Any, value: Any) -> None:
        if self._func_set is None:
            raise AttributeError(f"{self._name} cannot be set")
        for restriction in self.restrictions:
            if getattr(obj, restriction, False):
                state = restriction.lstrip("_")
                raise AttributeError(f"{self._name} of {type(obj).__name__} is frozen: {state}")
        self._func_set(obj, value)

    def getter(self, func_get: Getter) -> ModifierProp:
        return self._with(func_get, self._func_set)

    def setter(self, func_set: Setter) -> ModifierProp:
        return self._with(self._func_get, func_set)

    def _with(self, func_get: Getter | None, func_set: Setter | None) -> ModifierProp:
        return type(self)(
            serializable=self.serializable,
            restrict_initialized=False,
            restrict_extras=self.restrictions,
            no_serialize_val=self.no_serialize_val,
            func_get=func_get,
            func_set=func_set,
            doc=self.__doc__,
        )
