"""Old path: :mod:`sparseml.pytorch.nn`."""

from sparseml.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__, {"sparseml.pytorch.nn": "Identity"})
