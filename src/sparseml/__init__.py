"""Sparsify neural networks while they train."""

from sparseml.version import __version__

__all__ = ["__version__"]
