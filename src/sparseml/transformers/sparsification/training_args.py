"""Arguments of a training with a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

import transformers

__all__ = ["TrainingArguments"]


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """The arguments of transformers, and those of a recipe.

    :param distill_teacher: the model to distil from: a folder, ``"self"`` or ``"disable"``; for the
        script, which loads it and hands it to the Trainer
    :param best_model_after_epoch: until then no model counts as the best one
    :param recipe: a file, or the text of a recipe
    :param recipe_args: values for variables of the recipe, as JSON or ``name=value,...``
    """

    distill_teacher: str | None = field(
        default=None,
        metadata={"help": "Model to distil from: a folder, 'self' or 'disable'."},
    )
    best_model_after_epoch: int | None = field(
        default=None,
        metadata={"help": "Epoch from whose end on a model may be the best one."},
    )
    recipe: str | None = field(
        default=None, metadata={"help": "Recipe of the run: a file, or the text of one."}
    )
    recipe_args: str | None = field(
        default=None,
        metadata={"help": "Values for variables of the recipe, as JSON or name=value,..."},
    )
