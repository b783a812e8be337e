"""Layers that recipes put into models, and activations."""

from sparseml.pytorch.nn.activations import FATReLU, ReLU, ReLU6, Swish, fat_relu, swish
from sparseml.pytorch.nn.identity import Identity

__all__ = ["FATReLU", "Identity", "ReLU", "ReLU6", "Swish", "fat_relu", "swish"]
