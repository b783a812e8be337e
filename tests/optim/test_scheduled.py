from __future__ import annotations

import pytest

from sparseml.optim import BaseScheduled, BaseUpdate


@pytest.mark.parametrize(
    ("comparator", "start", "end", "valid"),
    [
        (None, 0.0, -1.0, True),
        (-1, 2.0, -1.0, True),
        (-1, 2.0, 2.0, True),
        (-1, 2.0, 1.0, False),
        (0, 2.0, 2.0, True),
        (0, 2.0, 1.0, False),
        (0, 0.0, -1.0, False),
        (1, 2.0, 2.5, True),
        (1, 2.0, 2.0, False),
    ],
)
def test_end_is_checked_against_start(
    comparator: int | None, start: float, end: float, valid: bool
) -> None:
    def make() -> BaseScheduled:
        return BaseScheduled(start_epoch=start, end_epoch=end, end_comparator=comparator)

    if valid:
        assert (make().start_epoch, make().end_epoch) == (start, end)
    else:
        with pytest.raises(ValueError, match="end_epoch of BaseScheduled must be"):
            make()


def test_limits() -> None:
    with pytest.raises(ValueError, match=r"start_epoch of BaseScheduled must be at least 0.0"):
        BaseScheduled(start_epoch=-1.0, min_start=0.0, end_epoch=1.0)
    with pytest.raises(ValueError, match=r"end_epoch of BaseScheduled must be at least 0.0"):
        BaseScheduled(end_epoch=-1.0, min_end=0.0, end_comparator=-1)
    with pytest.raises(ValueError):
        BaseScheduled(start_epoch=float("nan"), end_epoch=1.0)


@pytest.mark.parametrize("field", ["start_epoch", "end_epoch"])
def test_epochs_are_finite_numbers(field: str) -> None:
    modifier = BaseScheduled(start_epoch=1.0, end_epoch=3.0)
    for value, kind, text in (
        ("soon", ValueError, "must be a number of epochs, found 'soon'"),
        ([1], TypeError, r"must be a number of epochs, found \[1\]"),
        (None, TypeError, "must be a number of epochs, found None"),
        (True, TypeError, "must be a number of epochs, found True"),
        (float("inf"), ValueError, "must be finite, found inf"),
    ):
        with pytest.raises(kind, match=f"{field} of BaseScheduled {text}"):
            BaseScheduled(**{"start_epoch": 1.0, "end_epoch": 3.0, field: value})
        with pytest.raises(kind, match=f"{field} of BaseScheduled {text}"):
            setattr(modifier, field, value)


def test_every_set_is_checked() -> None:
    modifier = BaseScheduled(start_epoch=1, end_epoch=3, end_comparator=1)
    assert isinstance(modifier.start_epoch, float)
    modifier.end_epoch = 4
    with pytest.raises(ValueError):
        modifier.start_epoch = 4.0
    frozen = BaseScheduled(end_epoch=-1.0, end_comparator=None)
    with pytest.raises(ValueError, match=r"must stay -1.0"):
        frozen.end_epoch = 5.0
    modifier._initialized = True
    with pytest.raises(AttributeError):
        modifier.end_epoch = 9.0


@pytest.mark.parametrize(
    ("start", "end", "ref", "expected"),
    [
        (1.0, 3.0, 10.0, (11.0, 13.0)),
        (-1.0, 3.0, 10.0, (10.0, 13.0)),
        (1.0, -1.0, 10.0, (11.0, -1.0)),
        (1.0, 3.0, None, (1.0, 3.0)),
    ],
)
def test_advance_epochs(
    start: float, end: float, ref: float | None, expected: tuple[float, float]
) -> None:
    modifier = BaseScheduled(start_epoch=start, end_epoch=end, end_comparator=-1)
    modifier.advance_epochs(ref)
    assert (modifier.start_epoch, modifier.end_epoch) == expected
    assert modifier._init_end == expected[1]


def test_advancing_a_fixed_end_moves_what_it_is_fixed_to() -> None:
    modifier = BaseScheduled(start_epoch=0.0, end_epoch=2.0, end_comparator=None)
    modifier.advance_epochs(3.0)
    assert modifier.end_epoch == 5.0


def test_update_frequency() -> None:
    modifier = BaseUpdate(update_frequency=1, min_frequency=0.5)
    assert modifier.update_frequency == 1.0
    with pytest.raises(ValueError, match=r"update_frequency of BaseUpdate must be at least 0.5"):
        modifier.update_frequency = 0.25
    with pytest.raises(ValueError, match=r"found -2.0"):
        BaseUpdate(update_frequency=-2.0, min_frequency=-1.0)
    for value, kind, text in (
        ("often", ValueError, "must be a number of epochs, found 'often'"),
        (None, TypeError, "must be a number of epochs, found None"),
        (float("inf"), ValueError, "must be finite, found inf"),
    ):
        with pytest.raises(kind, match=f"update_frequency of BaseUpdate {text}"):
            BaseUpdate(update_frequency=value, min_frequency=-1.0)
