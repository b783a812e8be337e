"""Numbers that go on looking as somebody wrote them."""

from __future__ import annotations

from typing import Any


class _Written:
    """What prints as the text that it was written as."""

    _text: str

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__

    def __getnewargs__(self) -> Any:
        return (self._text,)


class WrittenNumber(_Written, float):
    """A number that prints as the text that it was written as, such as ``1e-4``.

    YAML 1.1, and with it SparseML 1.x, takes numbers with an exponent but without a dot for text.
    Recipes show such a text as it stood, and the identifiers of modifiers depend on it.

    :raises ValueError: if it is none
    """

    def __new__(cls, text: str) -> WrittenNumber:
        number = super().__new__(cls, text)
        number._text = str(text).strip()
        return number


class WrittenCount(_Written, int):
    """A whole number that prints as it was written, such as ``64.0``.

    :param given: the number, or the text of one
    :raises ValueError: if it is none
    """

    def __new__(cls, given: float | str) -> WrittenCount:
        number = super().__new__(cls, float(given))
        number._text = str(given).strip()
        return number


def as_written(value: Any) -> Any:
    """Return a number as it is, and the text of one as a number that prints as this text.

    :raises ValueError: for a text that is no number
    :raises TypeError: for what cannot be made a number
    """
    if isinstance(value, str):
        return WrittenNumber(value)
    number = float(value)
    return value if isinstance(value, (int, float)) else number
