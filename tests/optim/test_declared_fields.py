from __future__ import annotations

import inspect
from typing import Any

import pytest

from sparseml.optim import ModifierProp, ModifierYAML, RecipeTypeError, load_recipe
from sparseml.optim.declared_fields import (
    accepted_arguments,
    argument,
    declared_fields,
    described_arguments,
    field,
    fixed,
    ignored,
    stated,
)
from sparseml.optim.scheduled import BaseScheduled

REQUIRED = inspect.Parameter.empty


def positive(name: str, value: Any) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, found {value}")
    return float(value)


def never(name: str, value: Any) -> None:
    if value:
        raise ValueError(f"{name} is gone")


@ModifierYAML("declared")
@declared_fields()
class Shrinking(BaseScheduled):
    """Shrinks.

    :param factor: what weights are
        multiplied by
    :param phased: must be False
    :raises ValueError: for a factor that is not above 0
    """

    end_comparator: int = fixed(-1)
    factor: float = field(positive)
    start_epoch: float
    visits: list[str]
    strength: float = field(positive, default=2, serializable=False)
    phased: bool = argument(never, default=False)
    end_epoch: float = -1.0
    old: str | None = ignored(default=None)
    _private: int = 3

    @ModifierProp()
    def visits(self) -> Any:
        """Where it was."""
        return self._visits

    @visits.setter
    def visits(self, value: Any) -> None:
        self._visits = list(value)

    def _set_up(self) -> None:
        self.calls = ["Shrinking"]


@declared_fields(synonyms={"bias": "offset"})
class Shifting(Shrinking):
    strength: float = 5
    offset: float = field(positive, default=1, doc="What is added.")
    end_epoch: float = stated(default=-1.0, why="it goes on and on")
    phased: bool = fixed(False)

    def _set_up(self) -> None:
        self.calls.append("Shifting")


def parameters(clazz: type) -> dict[str, Any]:
    return {p.name: p.default for p in inspect.signature(clazz).parameters.values()}


def test_the_signature_has_the_fields_in_their_order() -> None:
    expected = {"factor": REQUIRED, "start_epoch": REQUIRED, "visits": REQUIRED, "strength": 2}
    expected |= {"phased": False, "end_epoch": -1.0, "old": None}
    assert list(parameters(Shrinking).items()) == list(expected.items())
    signature = inspect.signature(Shrinking.__init__)
    assert list(signature.parameters) == ["self", *expected]
    assert signature.parameters["factor"].annotation == "float"
    assert Shrinking.__init__.__qualname__ == "Shrinking.__init__"


def test_a_subclass_adds_changes_and_takes_away() -> None:
    expected = {"factor": REQUIRED, "start_epoch": REQUIRED, "visits": REQUIRED, "strength": 5}
    expected |= {"end_epoch": -1.0, "old": None, "offset": 1, "bias": None}
    assert list(parameters(Shifting).items()) == list(expected.items())
    assert inspect.signature(Shifting).parameters["bias"].annotation == "float | None"


def test_values_arrive_by_position_and_by_name() -> None:
    modifier = Shrinking(3, 1.0, "ab", 4, end_epoch=2)
    assert (modifier.factor, modifier.start_epoch, modifier.end_epoch) == (3.0, 1.0, 2.0)
    assert (modifier.visits, modifier.strength) == (["a", "b"], 4.0)
    assert type(modifier._factor) is float
    assert modifier._end_comparator == -1
    assert set(modifier.props(only_serializable=True)) == {
        "factor", "start_epoch", "end_epoch", "visits",
    }  # fmt: skip


def test_values_are_checked_then_and_later() -> None:
    with pytest.raises(ValueError, match="factor must be above 0, found -1"):
        Shrinking(-1, 0.0, [])
    modifier = Shrinking(1, 0.0, [])
    with pytest.raises(ValueError, match="strength must be above 0"):
        modifier.strength = 0
    modifier.factor = 7
    assert modifier.factor == 7.0
    modifier._initialized = True
    with pytest.raises(AttributeError, match="factor of Shrinking is frozen"):
        modifier.factor = 8


def test_a_checked_argument_is_not_kept() -> None:
    with pytest.raises(ValueError, match="phased is gone"):
        Shrinking(1, 0.0, [], phased=True)
    assert not hasattr(Shrinking(1, 0.0, []), "phased")


def test_what_is_fixed_is_no_argument() -> None:
    with pytest.raises(
        TypeError, match=r"Shifting\(\) got an unexpected keyword argument 'phased'"
    ):
        Shifting(1, 0.0, [], phased=False)


def test_what_is_ignored_has_no_effect() -> None:
    modifier = Shifting(1, 0.0, [], end_epoch=-1, old="x")
    assert modifier.end_epoch == -1.0
    with pytest.raises(ValueError, match=r"end_epoch is always -1.0, found 9.0: it goes on and on"):
        Shifting(1, 0.0, [], end_epoch=9.0)
    assert not hasattr(modifier, "old")


def test_what_is_hidden_is_neither_shown_nor_set() -> None:
    modifier = Shifting(1, 0.0, [])
    assert "end_epoch" not in modifier.props(only_serializable=True)
    with pytest.raises(AttributeError, match="end_epoch cannot be set"):
        modifier.end_epoch = 3.0


def test_a_synonym_wins_where_it_is_given() -> None:
    assert Shifting(1, 0.0, [], offset=2).offset == 2.0
    assert Shifting(1, 0.0, [], bias=3).offset == 3.0
    assert Shifting(1, 0.0, []).offset == 1.0


def test_every_class_sets_itself_up_once() -> None:
    assert Shrinking(1, 0.0, []).calls == ["Shrinking"]
    assert Shifting(1, 0.0, []).calls == ["Shrinking", "Shifting"]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1,), {}, r"Shrinking\(\) missing a required argument: 'start_epoch'"),
        ((1, 0.0, [], 1, False, -1.0, None, 8), {}, r"Shrinking\(\) too many positional arguments"),
        ((1, 0.0, []), {"factor": 2}, r"Shrinking\(\) multiple values for argument 'factor'"),
    ],
)
def test_wrong_arguments_name_the_class(args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Shrinking(*args, **kwargs)


def test_a_constructor_by_hand_goes_on_working() -> None:
    class Own(Shifting):
        def __init__(self, size: int, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.size = size

    modifier = Own(8, 1, 0.0, visits=["x"], offset=4)
    assert (modifier.size, modifier.offset, modifier.visits) == (8, 4.0, ["x"])
    assert accepted_arguments(Own.__mro__) == {"size", *parameters(Shifting)}

    @declared_fields()
    class Below(Own):
        size: int
        factor: float = 0.5
        start_epoch: float = 0.0
        visits: list[str] = ()

    assert list(parameters(Below)) == ["size", "factor", "start_epoch", "visits"]
    below = Below(4)
    assert (below.size, below.factor, below.strength) == (4, 0.5, 5.0)


def test_a_mix_in_comes_before_its_class() -> None:
    @declared_fields()
    class Epochs:
        start_epoch: float
        end_epoch: float

    @declared_fields()
    class Mixed(Epochs, BaseScheduled):
        factor: float = field(positive, default=1)
        end_epoch: float = 9.0

    assert parameters(Mixed) == {"start_epoch": REQUIRED, "end_epoch": 9.0, "factor": 1}
    assert Mixed(2.0).end_epoch == 9.0


def test_steps_stand_for_epochs() -> None:
    modifier = Shrinking(1, visits=[], start_step=10)
    modifier.resolve_steps(4)
    assert modifier.start_epoch == 2.5


def test_docstrings_describe_the_properties() -> None:
    assert described_arguments(Shrinking)["factor"] == "what weights are multiplied by"
    assert Shrinking.factor.__doc__ == "what weights are multiplied by"
    assert Shifting.offset.__doc__ == "What is added."
    assert Shrinking.strength.__doc__ is None


def test_recipes_know_the_fields() -> None:
    text = "modifiers:\n  - !Shrinking\n    factor: 2\n    start_epoch: 1.0\n"
    modifier = load_recipe(f"{text}    visits: [a]\n", "declared").modifiers[0]
    assert modifier.factor == 2.0
    with pytest.raises(RecipeTypeError, match="missing fields of !Shrinking: visits"):
        load_recipe(text, "declared")
    with pytest.raises(RecipeTypeError, match=r"unknown field 'factr'.*did you mean 'factor'"):
        load_recipe(text.replace("factor", "factr"), "declared")


def test_a_derived_property_keeps_its_getter() -> None:
    def doubled(modifier: Any) -> float:
        return 2 * modifier._factor

    class Doubled(Shrinking):
        factor = Shrinking.factor.getter(doubled)

    assert Doubled(3, 0.0, []).factor == 6.0


def test_nonsense_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="nothing of Unknown: neither a field"):

        @declared_fields()
        class Unknown(BaseScheduled):
            nothing: int = 3

    with pytest.raises(TypeError, match="other of Fixed: neither a field"):

        @declared_fields()
        class Fixed(BaseScheduled):
            other: int = fixed(3)

    with pytest.raises(TypeError, match="Twice has a constructor of its own"):

        @declared_fields()
        class Twice(BaseScheduled):
            def __init__(self) -> None:
                super().__init__()

    with pytest.raises(ValueError, match="non-default argument follows default argument"):

        @declared_fields()
        class Disordered(BaseScheduled):
            start_epoch: float = 0.0
            end_epoch: float


@declared_fields()
class Waiting(BaseScheduled):
    """Waits.

    :param patience: how long; the start if it is not given
    """

    start_epoch: float
    end_comparator: int = fixed(-1)
    patience: float | None = field(
        positive, default=None, unset=lambda modifier: modifier.start_epoch
    )


def test_a_field_that_is_not_given_may_follow_others() -> None:
    modifier = Waiting(3.0)
    assert modifier.patience == 3.0
    modifier.start_epoch = -1.0
    assert modifier.patience == -1.0, "what is not given is not checked"
    modifier.patience = 2
    assert modifier.props(only_serializable=True)["patience"] == 2.0
    modifier.patience = None
    assert modifier.patience == -1.0
    with pytest.raises(ValueError, match="patience must be above 0, found 0"):
        modifier.patience = 0
