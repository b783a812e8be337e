"""A model with its texts, which Transformers lends to a run, after a check of the settings."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, Subset

from sparseml.pytorch.units.origins import origins_of
from sparseml.pytorch.units.saved import save_shrunk
from sparseml.pytorch.utils.batch_streams import GradientBatches, make_grad_sampler
from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.tensors.nested import tensors_on
from sparseml.run.errors import RunError, few
from sparseml.run.files import atomic_text, require_room_for_run
from sparseml.run.precision import autocast_of
from sparseml.run.processes import Processes
from sparseml.run.progress import shown_progress
from sparseml.run.results import experiment_folder
from sparseml.run.session import Found, Metric
from sparseml.run.settings.groups import RunSettings
from sparseml.transformers.data.classifier import Classifier, load_classifier
from sparseml.transformers.data.reading import open_texts
from sparseml.transformers.inputs import (
    Batch,
    Inputs,
    LabelledTexts,
    PlainText,
    open_plain_text,
    text_files,
)
from sparseml.transformers.models import (
    is_causal,
    load_causal,
    load_config,
    model_folder,
    most_tokens,
    quiet,
    short_name,
)
from sparseml.transformers.settings import OneShotSettings, TextSettings, TrainingSettings
from sparseml.transformers.structure import RECIPE_NAME

_LOGGER = logging.getLogger(__name__)
_LENGTH, _WINDOW = 128, 512


@dataclass
class TextSession:
    """A classifier of texts, or a causal model, with its texts.

    :param training_batch: how many texts :meth:`training_batches` has in each batch
    :param gradient_data: what gradients are sampled on: the training texts, or parts of them
    :param gradient_batch: how many there are in each batch of these
    :param evaluation_batch: how many there are in each batch of an evaluation
    :param weights_loaded: whether all weights of the model were in its folder
    """

    run: RunSettings
    where: Processes
    model: nn.Module
    model_name: str
    tokenizer: Any
    inputs: Inputs
    gradient_data: Any
    training_batch: int
    gradient_batch: int
    evaluation_batch: int
    gradients_distributed: bool = False
    weights_loaded: bool = True

    packages: Sequence[str] = ("transformers",)

    @property
    def metrics(self) -> Sequence[Metric]:
        """Return what :meth:`evaluate` finds."""
        return self.inputs.metrics

    @property
    def training_size(self) -> int:
        """Return how many texts there are to sample gradients on."""
        return len(self.gradient_data)

    @property
    def evaluated_samples(self) -> int:
        """Return how many texts :meth:`evaluate` measures on."""
        return len(self.inputs.validation)

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, name: str = "evaluating") -> Found:
        """Return how good a model is on the validation texts, the same in all processes.

        Each text counts once, also where several processes share them.
        """
        where, scores = self.where, self.inputs.scores()
        own = range(where.rank, self.evaluated_samples, where.count)
        loader = self._loader(Subset(self.inputs.validation, own), self.evaluation_batch)
        autocast = autocast_of(self.run, where)
        with evaluating(model), shown_progress(name, len(loader), where.is_first) as advance:
            for number, (inputs, labels) in enumerate(loader, start=1):
                with autocast():
                    output = model(**tensors_on(inputs, where.device))
                scores.add(output, labels.to(where.device))
                advance(number, "")
        return scores.found(where)

    def sample_inputs(self, count: int = 1) -> dict[str, Tensor]:
        """Return the first validation texts, as keywords for the model."""
        samples = [self.inputs.validation[index] for index in range(count)]
        return dict(tensors_on(self._collated(samples)[0], self.where.device))

    def training_batches(self) -> Iterable[Any]:
        """Return training texts in random order, with their labels."""
        share = max(1, len(self.inputs.train) // self.where.count)
        return self.training_loader(min(self.training_batch, share))

    def training_loader(self, batch_size: int) -> DataLoader[Any]:
        """Return batches of training texts in random order; each process gets its share.

        :param batch_size: of each process
        """
        return self._shuffled(self.inputs.train, batch_size)

    def grad_sampler(self) -> dict[str, Any]:
        """Return what gradients are sampled on."""
        shared, seed, where = self.gradients_distributed, self.run.seed, self.where
        size = min(self.gradient_batch, self.training_size)
        build = functools.partial(self._shuffled, self.gradient_data, size, shared)
        rank = 0 if shared else where.rank
        return make_grad_sampler(
            lambda number: GradientBatches(build, (seed, rank, number), where.device),
            self.inputs.loss,
        )

    def write_model(self, model: nn.Module, manager: Any, folder: Path) -> None:
        """Write a folder that ``AutoModel.from_pretrained`` reads, with tokenizer and recipe."""
        saved: Any = unwrap_module(model, root=True)
        with quiet():
            if origins_of(saved):
                save_shrunk(saved, folder)
            else:
                saved.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        with atomic_text(folder / RECIPE_NAME) as file:
            file.write(str(manager))

    def _shuffled(self, dataset: Any, batch_size: int, shared: bool = True) -> DataLoader[Any]:
        sampler: Any = None
        if self.where.several and shared:
            sampler = DistributedSampler(dataset, seed=self.run.seed)
        return self._loader(dataset, batch_size, sampler=sampler, shuffle=sampler is None)

    def _loader(self, dataset: Any, batch_size: int, **more: Any) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size, collate_fn=self._collated, **more)

    def _collated(self, samples: Sequence[Any]) -> Batch:
        batch, labels = self.inputs.collate(samples)
        model: Any = self.model
        known, highest = model.get_input_embeddings().num_embeddings, int(batch["input_ids"].max())
        if highest >= known:
            raise RunError(
                f"--model {self.model_name} knows {known} tokens, its tokenizer gives number "
                f"{highest}: it belongs to another model"
            )
        return batch, labels


def open_session(settings: OneShotSettings | TrainingSettings, where: Processes) -> TextSession:
    """Load the model and find the texts.

    :raises RunError: if there is no such model or data, or they do not fit together
    """
    run, data, name = settings.run, settings.data, settings.model.model
    folder = model_folder(name)
    resumes = isinstance(settings, TrainingSettings) and bool(settings.checkpoints.resume)
    if where.is_first and not resumes:  # the others may come when it has begun to write
        require_room_for_run(experiment_folder(run, short_name(name)), run.overwrite)
    config = load_config(folder)
    causal = is_causal(config) and not data.task_name
    with quiet():
        loaded, inputs = (_causal if causal else _classifier)(data, folder, config)
    if loaded.fresh:
        _LOGGER.warning(
            "--model %s has no weights for %s: they are random", name, few(loaded.fresh)
        )
    evaluation, gradients = (8, 4) if causal else (32, 16)
    training = evaluation = data.val_batch_size or evaluation
    if isinstance(settings, TrainingSettings):
        training = gradients = settings.optimizer.batch_size
    return TextSession(
        run,
        where,
        loaded.model.float().to(where.device),
        short_name(name),
        loaded.tokenizer,
        inputs,
        _gradient_data(inputs, settings.sampler.gs_window),
        run.bn_retune_batch_size or training,
        settings.sampler.gs_batch_size or gradients,
        evaluation,
        settings.sampler.gs_distributed,
        not loaded.fresh,
    )


def _causal(data: TextSettings, folder: Path, config: Any) -> tuple[Classifier, PlainText]:
    """Return a causal model, and plain text in pieces."""
    text_files(data.data_dir, data.train_file, data.validation_file)
    loaded = load_causal(folder, config, f"--model {folder}")
    limit = most_tokens(config, loaded.tokenizer)
    texts = open_plain_text(
        loaded.tokenizer,
        _length("--window", data.window, _WINDOW, limit),
        path=data.data_dir,
        train_file=data.train_file,
        validation_file=data.validation_file,
        held_out=data.held_out,
    )
    train, validation = texts.train[: data.max_train_samples], texts.validation
    return loaded, PlainText(train, validation[: data.max_val_samples])


def _classifier(data: TextSettings, folder: Path, config: Any) -> tuple[Classifier, LabelledTexts]:
    """Return a classifier, and tables of texts with labels."""
    texts = open_texts(data.task_name, data.data_dir, data.train_file, data.validation_file)
    texts = texts.shortened(data.max_train_samples, data.max_val_samples)
    loaded = load_classifier(str(folder), texts.task, "--model")
    tokenizer = _with_padding(loaded, folder)
    limit = most_tokens(config, tokenizer)
    length = _length("--max-length", data.max_length, _LENGTH, limit)
    return loaded, LabelledTexts(
        texts.task, texts.train, texts.validation, tokenizer, length, loaded.order
    )


def _gradient_data(inputs: Inputs, window: int | None) -> Any:
    if window is None:
        return inputs.train
    if not isinstance(inputs, PlainText):
        raise RunError(f"--gs-window {window}: only plain text is cut into pieces")
    if inputs.train.shape[1] % window:
        raise RunError(f"--gs-window {window} must divide --window {inputs.train.shape[1]}")
    return inputs.train.view(-1, window)


def _length(flag: str, asked: int | None, usual: int, limit: int) -> int:
    if asked is not None and asked > limit:
        raise RunError(f"{flag} {asked}: the model takes no more than {limit} tokens")
    return asked or min(usual, limit)


def _with_padding(loaded: Classifier, folder: Path) -> Any:
    """Return the tokenizer, with the same token for padding as the model."""
    tokenizer: Any = loaded.tokenizer
    config: Any = loaded.model.config
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise RunError(f"--model {folder}: the tokenizer has no token for padding, nor for the end")
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    return tokenizer
