"""A sentence of a report."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Finding"]


class Finding(NamedTuple):
    """A sentence, and whether it tells a ``gain``, a ``loss``, that things are the ``same``, or
    just a fact (``info``)."""

    kind: str
    text: str
