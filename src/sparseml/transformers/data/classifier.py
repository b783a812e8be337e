"""Classifiers of texts from a folder or the hub, with the labels of a task."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sparseml.run.errors import RunError, few, one_line
from sparseml.transformers.data.tasks import TextTask
from sparseml.transformers.errors import loading

__all__ = ["Classifier", "label_order", "load_classifier", "require_model_folder"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classifier:
    """A model that answers a task.

    :param order: the model's output for each label of the task; None for regression
    :param fresh: names of parameters that no file had, so that they are random
    """

    model: nn.Module
    tokenizer: Any
    order: list[int] | None
    fresh: tuple[str, ...] = ()


def load_classifier(
    name: str, task: TextTask, flag: str = "--model-name-or-path", fast_tokenizer: bool = True
) -> Classifier:
    """Load model and tokenizer from a folder or the hub; a head that is lacking is random.

    :param flag: that gave the name, for errors
    :raises RunError: if there is no model for text, or it has other outputs than the task
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from sparseml.transformers.shrunk import with_weights

    require_model_folder(name, flag)
    with loading(f"{flag} {name}"):
        config = AutoConfig.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=fast_tokenizer)
        _require_outputs(config, task, f"{flag} {name}")
        order = label_order(config, task)
        model, missing = with_weights(AutoModelForSequenceClassification, name, config)
    return Classifier(model, tokenizer, order, tuple(missing))


def require_model_folder(name: str, flag: str = "--model-name-or-path") -> None:
    """Check that a folder, if the name is one, holds a model; any other has to be on the hub.

    :raises RunError: if it has no ``config.json``, or the hub is needed and cannot be reached
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        there = few(sorted(file.name for file in folder.iterdir()))
        raise RunError(f"{flag} {name}: the folder holds no model: no config.json, but {there}")
    if folder.exists():
        return
    if folder.is_absolute() or name.startswith((".", "~")):
        raise RunError(f"{flag} {name}: no such folder")
    _require_hub(name, f"{flag} {name}")


def _require_hub(name: str, what: str) -> None:
    """Ask once whether the hub is there: to load without a network takes a minute of retries."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from transformers.utils import cached_file

    try:
        cached_file(name, "config.json", local_files_only=True)
    except (OSError, ValueError):
        try:
            HfApi().model_info(name, timeout=10)
        except (HfHubHTTPError, ValueError):
            return  # to load tells what of the name is wrong
        except Exception as error:  # of the network, which each release has others for
            raise RunError(
                f"{what}: no such folder, nothing of that name in the cache of the hub, and the "
                f"hub cannot be reached: {one_line(error)}"
            ) from error


def label_order(config: Any, task: TextTask) -> list[int] | None:
    """Return the model's output for each label of a task; None for regression.

    A model whose labels have names keeps its order if they are those of the task. To any other the
    labels of the task are given, in their own order.

    :param config: of the model, changed to have the task's labels
    """
    if task.is_regression:
        return None
    named = {str(name).lower(): int(number) for number, name in config.id2label.items()}
    if sorted(named) == sorted(label.lower() for label in task.labels):
        return [named[label.lower()] for label in task.labels]
    if not all(name.startswith("label_") for name in named):
        _LOGGER.warning(
            "the model's labels are %s; they become those of task %s: %s",
            few(named, 6), task.name, few(task.labels, 6),
        )  # fmt: skip
    config.id2label = dict(enumerate(task.labels))
    config.label2id = {label: number for number, label in enumerate(task.labels)}
    return list(range(len(task.labels)))


def _require_outputs(config: Any, task: TextTask, given: str) -> None:
    """Check a trained head; one that is not there yet gets the outputs that the task needs."""
    heads = [name for name in config.architectures or () if "SequenceClassification" in name]
    if heads and config.num_labels != task.outputs:
        raise RunError(
            f"{given} has {config.num_labels} outputs, task {task.name} needs {task.outputs}: it "
            "was trained for another task"
        )
    config.num_labels = task.outputs
    config.finetuning_task = task.name
    if task.is_regression:
        config.problem_type = "regression"
