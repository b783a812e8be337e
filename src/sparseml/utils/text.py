"""Text for people: names that they may have meant, and what is fit to be shown."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

# difflib compares in quadratic time, and names worth suggesting are short
_LONGEST_NAME = 200
_MOST_CANDIDATES = 5000
_MARGIN = 0.1


def nearest_names(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """Return up to ``limit`` candidates that look most like ``name``, best first.

    None is much less similar than the best. Upper and lower case count as equal.
    """
    if len(name) > _LONGEST_NAME:
        return []
    by_folded: dict[str, str] = {}
    for candidate in list(candidates)[:_MOST_CANDIDATES]:
        by_folded.setdefault(candidate.lower(), candidate)
    folded = name.lower()
    matches = difflib.get_close_matches(folded, list(by_folded), n=limit, cutoff=0.6)
    ratios = [difflib.SequenceMatcher(None, match, folded).ratio() for match in matches]
    return [
        by_folded[match]
        for match, ratio in zip(matches, ratios, strict=True)
        if ratio >= ratios[0] - _MARGIN
    ]


def printable(text: str) -> str:
    """Return text for a terminal: characters that would control it stand there as escapes."""
    return "".join(
        letter
        if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf")
        else ascii(letter)[1:-1]
        for letter in text
    )


def one_line(error: BaseException | str) -> str:
    """Return the text of an error in one line; of one that names nothing but a key, a sentence."""
    if isinstance(error, KeyError) and len(error.args) == 1:
        (key,) = error.args
        is_key = not isinstance(key, str) or " " not in key.strip()
        error = f"there is no {key!r} in it" if is_key else key
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line for line in lines if line) or type(error).__name__


def shown(value: object, length: int = 400) -> str:
    """Return ``repr(value)`` for a message, cut after ``length`` letters.

    Patterns in it have the backslashes that were written, once.
    """
    known = value[: length + 1] if isinstance(value, (str, list, tuple)) else value
    text = repr(known).replace("\\\\", "\\")
    return text if len(text) <= length else f"{text[:length]}..."


def shortened(value: object, length: int = 80) -> str:
    """Return what :func:`shown` does, for a value that is not what a message is about."""
    return shown(value, length)


def few(names: Iterable[object], most: int = 3, between: str = ", ") -> str:
    """Return the first of some names, and how many more there are: ``"a, b, c and 4 more"``."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return (between.join(map(str, listed[:most])) or "none") + more


def quoted_list(names: Iterable[str], last: str = "or") -> str:
    """``["a", "b", "c"]`` as ``'a', 'b' or 'c'``."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"


def did_you_mean(name: str, candidates: Iterable[str], limit: int = 3) -> str:
    """Return the tail of an error message: ``"; did you mean 'final_sparsity'?"``."""
    matches = nearest_names(name, candidates, limit)
    return f"; did you mean {quoted_list(matches)}?" if matches else ""
