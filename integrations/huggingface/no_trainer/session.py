"""The model and the texts of a GLUE script, lent to a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from no_trainer.settings import ScriptSettings
from sparseml.run import Processes, RunError
from sparseml.run.session import Found, Metric
from sparseml.transformers.data import Classifier, TextData, load_classifier, open_texts
from sparseml.transformers.inputs import Batch, LabelledTexts
from sparseml.transformers.models import most_tokens, quiet, short_name
from sparseml.transformers.session import TextSession

_LOGGER = logging.getLogger(__name__)
_ENDINGS = ("_mm",)
_PRECISIONS = {"fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class GlueTexts(LabelledTexts):
    """Texts with labels.

    :param padding: how far to pad, ``longest`` or ``max_length``
    :param multiple: pad to a multiple of this, which half precision is fastest for
    """

    padding: str = "longest"
    multiple: int | None = None

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Return a batch of texts, with their labels as numbers of outputs."""
        batch, labels = super().collate(samples)
        if self.padding == "longest" and self.multiple is None:
            return batch, labels
        to = {"padding": self.padding, "pad_to_multiple_of": self.multiple}
        return self._tokens(samples, **to, return_tensors="pt"), labels

    def lengths(self) -> list[int]:
        """Return how many tokens each text to train on has."""
        return [len(ids) for ids in self._tokens(self.train)["input_ids"]]

    def _tokens(self, samples: Sequence[Any], **padding: Any) -> dict[str, Any]:
        columns = [[one[key] for one in samples] for key in self.task.keys]
        found = self.tokenizer(*columns, truncation=True, max_length=self.length, **padding)
        return dict(found)


@dataclass
class GlueSession(TextSession):
    """A classifier with the texts of a task; MNLI has two sets to evaluate on.

    :param accelerator: moves batches, shares them among processes, and steps the optimizer
    :param teacher: to distil from, in eval mode, or None
    :param others: further texts to evaluate on, by what their metrics' names end in
    """

    accelerator: Any = None
    teacher: nn.Module | None = None
    others: dict[str, GlueTexts] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Return what :meth:`evaluate` finds."""
        own = tuple(self.inputs.metrics)
        return own + tuple(
            replace(metric, name=metric.name + ending, column=metric.column + ending)
            for ending in self.others
            for metric in own
        )

    def evaluate(self, model: nn.Module, name: str = "evaluating") -> Found:
        """Return how good a model is on all sets of validation texts."""
        found, own = super().evaluate(model, name), self.inputs
        for ending, inputs in self.others.items():
            try:
                self.inputs = inputs
                more = super().evaluate(model, f"{name} {ending}")
            finally:
                self.inputs = own
            found |= {f"{key}{ending}": value for key, value in more.items()}
        return found


def open_data(settings: ScriptSettings) -> TextData:
    """Return the task and its texts.

    :raises RunError: if they are not there, or not those of the task
    """
    data = settings.data
    texts = open_texts(data.task_name, data.data_dir, data.train_file, data.validation_file)
    return texts.shortened(data.max_train_samples, data.max_eval_samples)


def open_session(settings: ScriptSettings, texts: TextData, where: Processes) -> GlueSession:
    """Load model and teacher, and make tokens of the texts.

    :raises RunError: if there is no such model, or it is one of another task
    """
    accelerator = _accelerator(settings, where)
    chosen, data = settings.model, settings.data
    with quiet():
        loaded = load_classifier(
            chosen.model_name_or_path, texts.task, fast_tokenizer=not chosen.use_slow_tokenizer
        )
        teacher = _teacher(settings, texts, loaded)
    if loaded.fresh and where.is_first:
        _LOGGER.info("random, as no file has them: %s", ", ".join(loaded.fresh))
    limit = most_tokens(loaded.model.config, loaded.tokenizer)
    if data.max_length > limit:
        raise RunError(f"--max-length {data.max_length}: the model takes at most {limit} tokens")
    train, first, *more = (texts.splits[name] for name in ("train", *texts.task.validation))
    inputs = GlueTexts(
        task=texts.task,
        train=train,
        validation=first,
        tokenizer=loaded.tokenizer,
        length=data.max_length,
        order=loaded.order,
        padding="max_length" if data.pad_to_max_length else "longest",
        multiple=8 if settings.run.amp else None,
    )
    others = zip(_ENDINGS, more, strict=False)
    return GlueSession(
        run=settings.run,
        where=where,
        model=loaded.model.float().to(where.device),
        model_name=short_name(chosen.model_name_or_path),
        tokenizer=loaded.tokenizer,
        inputs=inputs,
        gradient_data=train,
        training_batch=data.per_device_train_batch_size,
        gradient_batch=data.per_device_train_batch_size,
        evaluation_batch=data.per_device_eval_batch_size,
        weights_loaded=not loaded.fresh,
        packages=("transformers", "accelerate", "datasets"),
        accelerator=accelerator,
        teacher=None if teacher is None else teacher.float().to(where.device).eval(),
        others={ending: replace(inputs, validation=rows) for ending, rows in others},
    )


def _accelerator(settings: ScriptSettings, where: Processes) -> Accelerator:
    """Return accelerate's part; how it was launched decides on half precision, or ``--amp``."""
    run, launched = settings.run, os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched in _PRECISIONS and not run.amp:
        run.amp, run.amp_dtype = True, _PRECISIONS[launched]
    accelerator = Accelerator(cpu=where.device.type == "cpu", mixed_precision="no")
    kind = str(accelerator.distributed_type.value)
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise RunError(f"accelerate was launched with {kind}, this script shares data only (DDP)")
    return accelerator


def _teacher(settings: ScriptSettings, texts: TextData, student: Classifier) -> nn.Module | None:
    """Return the teacher; a student without a head of its own gets that of the teacher."""
    if settings.pruning.distill_loss_weight <= 0 and not settings.model.teacher_model_name_or_path:
        return None
    flag, name = "--teacher-model-name-or-path", settings.model.teacher_model_name_or_path
    if name is None:
        flag, name = "--model-name-or-path", settings.model.model_name_or_path
    teacher = load_classifier(name, texts.task, flag)
    if teacher.fresh:
        raise RunError(f"{flag} {name}: the teacher is not fine-tuned, it has no classifier")
    if settings.pruning.distill_loss_weight > 0:
        widths = [getattr(one.model.config, "hidden_size", 0) for one in (teacher, student)]
        if widths[0] != widths[1]:
            raise RunError(
                f"{flag} {name}: its hidden states are {widths[0]} wide, those of the model "
                f"{widths[1]}; --recipe with PerLayerDistillationModifier takes such a teacher"
            )
        if student.fresh:
            _take_head(student, teacher.model)
    return teacher.model


@torch.no_grad()
def _take_head(student: Classifier, teacher: nn.Module) -> None:
    """Copy what no gradient of the distance between hidden states would reach."""
    taught, own = dict(teacher.named_parameters()), dict(student.model.named_parameters())
    for name in student.fresh:
        if name not in taught or taught[name].shape != own[name].shape:
            raise RunError(
                f"--distill-loss-weight: {name} of the student is random, no loss reaches it, and "
                "the teacher has none like it: fine-tune the student first"
            )
        own[name].copy_(taught[name])
