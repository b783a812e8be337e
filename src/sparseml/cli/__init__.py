"""The ``sparseml`` command."""

from sparseml.cli.command import main

__all__ = ["main"]
