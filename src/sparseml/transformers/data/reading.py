"""Texts with labels, from the hub or from files, as the columns of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseml.run.errors import RunError, few, one_line
from sparseml.transformers.data.files import find_splits, read_table
from sparseml.transformers.data.tasks import TextTask, glue_task
from sparseml.utils.text import quoted_list

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["TextData", "open_texts"]

_HUB = "nyu-mll/glue"
# what GLUE's own files call the columns of its tasks
_ALSO = {
    "label": ("gold_label", "is_duplicate", "Quality", "score"),
    "sentence1": ("#1 String",),
    "sentence2": ("#2 String",),
    "premise": ("sentence1",),
    "hypothesis": ("sentence2",),
}


@dataclass(frozen=True)
class TextData:
    """A task with its texts.

    :param splits: name → rows with the columns ``task.keys`` and ``label``, the number of a class
        or, for regression, a number
    """

    task: TextTask
    splits: Mapping[str, Dataset]

    @property
    def train(self) -> Dataset:
        """Return what there is to train on."""
        return self.splits["train"]

    @property
    def validation(self) -> Dataset:
        """Return what to evaluate on; of MNLI, the part that matches the training data."""
        return self.splits[self.task.validation[0]]

    def shortened(self, train: int | None = None, validation: int | None = None) -> TextData:
        """Return the data with no more than the first rows of each split."""
        most = {"train": train, **dict.fromkeys(self.task.validation, validation)}
        splits = {
            name: rows
            if (count := most.get(name)) is None
            else rows.select(range(min(count, len(rows))))
            for name, rows in self.splits.items()
        }
        return replace(self, splits=splits)


def open_texts(
    task_name: str | None = None,
    data_dir: str | None = None,
    train_file: str | None = None,
    validation_file: str | None = None,
) -> TextData:
    """Return a task with its training and validation data.

    They come from the two files, else from those of a folder, else, for a task of GLUE, from the
    hub. Without a task the files say what it is: the columns ``sentence1`` and ``sentence2``, or
    else the first two beside ``label``, and as classes the labels there are; labels with fractions
    make it regression.

    :raises RunError: if that is not enough, or for data that are not those of the task
    """
    task = None if task_name is None else glue_task(task_name)
    files = _files(task, data_dir, train_file, validation_file)
    if files:
        tables = {split: read_table(path) for split, path in files.items()}
        task = task or _task_of(files["train"], tables["train"])
        read = {split: _rows(files[split], table, task) for split, table in tables.items()}
        return TextData(task, read)
    if task is None:
        raise RunError("give --task-name, a task of GLUE, or --train-file and --validation-file")
    return TextData(task, _from_hub(task))


def _files(
    task: TextTask | None, folder: str | None, train: str | None, validation: str | None
) -> dict[str, Path]:
    given = {"train": train, "validation": validation}
    named = {split: Path(file).expanduser() for split, file in given.items() if file}
    if folder and named:
        raise RunError(f"give --data-dir {folder} or files, not both")
    if len(named) == 1:
        lacking = "--validation-file" if train else "--train-file"
        raise RunError(f"{lacking} is needed with --{next(iter(named))}-file")
    validations = task.validation if task else ("validation",)
    if named:
        return {"train": named["train"], validations[0]: named["validation"]}
    if not folder:
        return {}
    return find_splits(Path(folder).expanduser(), ("train", *validations))


def _task_of(path: Path, table: Mapping[str, list[Any]]) -> TextTask:
    columns = [name for name in table if name not in ("label", "idx", "id")]
    preferred = [name for name in ("sentence1", "sentence2") if name in columns]
    keys = tuple(preferred or columns[:2])
    if not keys or "label" not in table:
        raise _lacks(path, "label" if keys else "of text", table, "a task of one's own")
    name, values = path.name.split(".")[0], set(table["label"])
    numbers = {number for value in values if (number := _number(value)) is not None}
    if len(numbers) < len(values):
        labels = tuple(sorted(map(str, values)))
    elif all(number.is_integer() for number in numbers):
        labels = tuple(str(int(number)) for number in sorted(numbers))
    else:
        return TextTask(name, keys, (), ("pearson", "spearmanr"))
    if len(labels) < 2:
        raise RunError(f"{path}: all rows have the label {labels[0]!r}; a task has at least two")
    return TextTask(name, keys, labels)


def _rows(path: Path, table: Mapping[str, list[Any]], task: TextTask) -> Dataset:
    """Return the columns that the task asks for, with numbers for labels."""
    from datasets import Dataset

    columns: dict[str, list[Any]] = {}
    for key in (*task.keys, "label"):
        names = [name for name in (key, *_ALSO.get(key, ())) if name in table]
        if not names:
            raise _lacks(path, key, table, f"task {task.name}")
        columns[key] = table[names[0]]
    for key in task.keys:
        columns[key] = list(map(str, columns[key]))
    columns["label"] = [_label(path, value, task) for value in columns["label"]]
    return Dataset.from_dict(columns)


def _label(path: Path, value: Any, task: TextTask) -> int | float:
    number = _number(value)
    if task.is_regression:
        if number is not None:
            return number
        raise RunError(f"{path}: label {value!r} is no number, as task {task.name} has them")
    word = str(value) if number is None or not number.is_integer() else str(int(number))
    if word in task.labels:
        return task.labels.index(word)
    if word.isdigit() and int(word) < len(task.labels) and not task.labels[0].isdigit():
        return int(word)
    allowed = few((f"{number} ({name})" for number, name in enumerate(task.labels)), 8)
    raise RunError(f"{path}: label {value!r} is none of task {task.name}, which has {allowed}")


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _lacks(path: Path, column: str, table: Mapping[str, Sequence[Any]], needed: str) -> RunError:
    has = quoted_list(list(table)[:20], "and")
    return RunError(f"{path} has no column {column!r}, which {needed} needs; it has {has}")


def _from_hub(task: TextTask) -> dict[str, Dataset]:
    from datasets import load_dataset

    try:
        return {
            split: load_dataset(_HUB, task.name, split=split)
            for split in ("train", *task.validation)
        }
    except (OSError, ValueError) as error:  # no network, no such set in the cache
        raise RunError(
            f"--task-name {task.name}: the data cannot be had from the hub ({one_line(error)}); "
            "--data-dir FOLDER reads them from files, train.tsv and dev.tsv"
        ) from error
