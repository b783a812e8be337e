"""Names that are imported from their home when somebody asks for them.

What such a module offers is no import of its own: it loads nothing, and for import contracts it
needs nothing. That is how old paths lead to :mod:`sparseml.legacy`, which nobody imports.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_names", "moved"]

_Hooks = tuple[Callable[[str], Any], Callable[[], list[str]]]


def lazy_names(module: str, homes: Mapping[str, str]) -> _Hooks:
    """Return ``__getattr__`` and ``__dir__`` for a module some of whose names live elsewhere.

    :param module: the module's name, to be given as ``__name__``
    :param homes: home, a module's name → the names that are looked up there, divided by
        spaces
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home_of[name]), name)

    return get, lambda: sorted({*vars(sys.modules[module]), *home_of})


def moved(module: str, home: str) -> _Hooks:
    """Return ``__getattr__`` and ``__dir__`` for an old path: all names are those of ``home``.

    The module's docstring says so.

    :param module: the old path, to be given as ``__name__``
    :param home: name of the module that has taken its place
    """

    sys.modules[module].__doc__ = f"Old path: :mod:`{home}`."

    def get(name: str) -> Any:
        if not name.startswith("__") or name == "__all__":
            return getattr(importlib.import_module(home), name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return get, lambda: sorted({*vars(sys.modules[module]), *dir(importlib.import_module(home))})
