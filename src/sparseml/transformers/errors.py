"""What is wrong with a training by a Trainer."""

from __future__ import annotations

from sparseml.run.errors import RunError


class CallbackError(RunError, ValueError):
    """A recipe, model, checkpoint or setting that a Trainer's run cannot work with."""
