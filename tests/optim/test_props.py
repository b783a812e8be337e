from __future__ import annotations

from typing import Any

import pytest

from sparseml.optim import BaseProp, ModifierProp


class Holder:
    def __init__(self) -> None:
        self._value = 1
        self._initialized = False
        self._enabled = False
        self._locked = False

    @ModifierProp(no_serialize_val=7)
    def value(self) -> int:
        """A value."""
        return self._value

    @value.setter
    def value(self, value: int) -> None:
        self._value = value

    @ModifierProp(restrict_initialized=False, restrict_enabled=True, restrict_extras=["_locked"])
    def guarded(self) -> int:
        return self._value

    @guarded.setter
    def guarded(self, value: int) -> None:
        self._value = value

    @ModifierProp(serializable=False)
    def fixed(self) -> int:
        return 3

    empty = ModifierProp()


def test_reads_and_writes_through_the_functions() -> None:
    holder = Holder()
    holder.value = 5
    assert holder.value == holder._value == 5


def test_on_the_class_the_descriptor_itself_is_seen() -> None:
    assert isinstance(Holder.value, ModifierProp)
    assert isinstance(Holder.value, BaseProp)
    assert Holder.value._func_set is not None
    assert Holder.fixed._func_set is None
    assert Holder.value.__doc__ == "A value."


@pytest.mark.parametrize(
    ("name", "flag", "frozen"),
    [
        ("value", "_initialized", True),
        ("value", "_enabled", False),
        ("guarded", "_initialized", False),
        ("guarded", "_enabled", True),
        ("guarded", "_locked", True),
    ],
)
def test_restrictions_freeze_a_property(name: str, flag: str, frozen: bool) -> None:
    holder = Holder()
    setattr(holder, flag, True)
    if frozen:
        with pytest.raises(AttributeError, match=f"{name} of Holder is frozen: {flag[1:]}"):
            setattr(holder, name, 2)
    else:
        setattr(holder, name, 2)
        assert holder._value == 2


def test_missing_functions_are_attribute_errors() -> None:
    holder = Holder()
    with pytest.raises(AttributeError, match="fixed cannot be set"):
        holder.fixed = 4
    with pytest.raises(AttributeError, match="empty cannot be read"):
        _ = holder.empty
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del holder.value


@pytest.mark.parametrize("method", ["getter", "setter"])
def test_getter_and_setter_give_new_objects_that_keep_everything(method: str) -> None:
    prop = ModifierProp(
        serializable=False, restrict_enabled=True, restrict_extras=["_x"], no_serialize_val=4
    )
    changed = getattr(prop, method)(lambda *_: None)
    assert changed is not prop
    assert type(changed) is ModifierProp
    assert changed.serializable is False
    assert changed.restrictions == prop.restrictions == ["_initialized", "_enabled", "_x"]
    assert changed.no_serialize_val == 4


def test_the_base_class_is_abstract() -> None:
    base: Any = BaseProp
    with pytest.raises(TypeError):
        base()
