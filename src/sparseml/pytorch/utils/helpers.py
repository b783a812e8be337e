"""All of :mod:`sparseml.pytorch.utils`, under the name from which older code imports it."""

from sparseml.lazy import moved

__getattr__, __dir__ = moved(__name__, "sparseml.pytorch.utils")
