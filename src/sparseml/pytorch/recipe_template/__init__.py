"""Old path: :mod:`sparseml.legacy.recipes.template`.

``sparseml.pytorch.recipe_template`` is two things to old code: this package, and the function in
it. So the package can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from sparseml.lazy import moved

__getattr__, __dir__ = moved(__name__, "sparseml.legacy.recipes.template")


class _Package(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> str:
        text: str = self.recipe_template(*args, **kwargs)
        return text


sys.modules[__name__].__class__ = _Package
