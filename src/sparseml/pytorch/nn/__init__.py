"""Layers that recipes put into models, and activations."""

from sparseml.lazy import lazy_names
from sparseml.pytorch.nn.identity import Identity

_MOVED = {
    "sparseml.legacy.nn.activations": "FATReLU ReLU ReLU6 Swish fat_relu swish",
}
__all__ = ["Identity"]
__all__ += " ".join(_MOVED.values()).split()
__getattr__, __dir__ = lazy_names(__name__, _MOVED)
