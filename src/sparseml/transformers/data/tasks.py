"""What the tasks of GLUE ask, and tasks that a file of one's own makes up."""

from __future__ import annotations

from dataclasses import dataclass

from sparseml.run.errors import RunError
from sparseml.utils.text import did_you_mean

__all__ = ["GLUE_TASKS", "TextTask", "glue_task"]


@dataclass(frozen=True)
class TextTask:
    """A question about one text or a pair of texts.

    :param name: as GLUE calls it, or the user's
    :param keys: names of the columns of text, one or two
    :param labels: names of the classes, in the order of their numbers; none where the answer is a
        number
    :param metrics: what predictions are judged by, the most telling first
    :param validation: splits to evaluate on, in the order that GLUE tells them
    """

    name: str
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    validation: tuple[str, ...] = ("validation",)

    @property
    def is_regression(self) -> bool:
        """Return whether the answer is a number."""
        return not self.labels

    @property
    def outputs(self) -> int:
        """Return how many outputs a model for the task has."""
        return len(self.labels) or 1


_PAIR = ("sentence1", "sentence2")
_ENTAILED = ("entailment", "not_entailment")
_BOTH = ("accuracy", "f1")
_MATCHED = ("validation_matched", "validation_mismatched")

GLUE_TASKS = {
    task.name: task
    for task in (
        TextTask("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation",)),
        TextTask(
            "mnli",
            ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"),
            validation=_MATCHED,
        ),
        TextTask("mrpc", _PAIR, ("not_equivalent", "equivalent"), _BOTH),
        TextTask("qnli", ("question", "sentence"), _ENTAILED),
        TextTask("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), _BOTH),
        TextTask("rte", _PAIR, _ENTAILED),
        TextTask("sst2", ("sentence",), ("negative", "positive")),
        TextTask("stsb", _PAIR, (), ("pearson", "spearmanr")),
        TextTask("wnli", _PAIR, ("not_entailment", "entailment")),
    )
}
"""The tasks of GLUE by name."""


def glue_task(name: str) -> TextTask:
    """Return a task of GLUE; ``SST-2``, ``sts-b`` and the like are understood.

    :raises RunError: for a name that is none, with those there are
    """
    plain = name.lower().replace("-", "").replace("_", "")
    if plain not in GLUE_TASKS:
        hint = did_you_mean(plain, GLUE_TASKS) or f"; the tasks are {', '.join(GLUE_TASKS)}"
        raise RunError(f"--task-name {name}: GLUE has no such task{hint}")
    return GLUE_TASKS[plain]
