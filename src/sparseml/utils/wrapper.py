"""Old path: :mod:`sparseml.legacy.helpers.iterables`."""

from sparseml.lazy import lazy_names

_HOMES = {"sparseml.legacy.helpers.iterables": "wrapper_decorator"}
__all__ = [*" ".join(_HOMES.values()).split()]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
