"""A model with its sentences, which fairseq lends to a run, after a check of the settings."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from torch import Tensor, nn

from sparseml.fairseq.fitting import shrinking
from sparseml.fairseq.inputs import IGNORED, Pairs, Split, keywords, open_split
from sparseml.fairseq.models import Loaded, load_model, short_name, write_checkpoint
from sparseml.fairseq.settings import OneShotSettings, TranslatingSettings
from sparseml.fairseq.shrunk import make_shrinkable
from sparseml.fairseq.translating import Translations, require_translating
from sparseml.pytorch.utils.batch_streams import GradientBatches, make_grad_sampler
from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.tensors.nested import tensors_on
from sparseml.run.errors import RunError
from sparseml.run.files import atomic_text, require_room_for_run
from sparseml.run.fitting import load_recipe
from sparseml.run.precision import autocast_of
from sparseml.run.processes import Processes
from sparseml.run.progress import shown_progress
from sparseml.run.results import experiment_folder
from sparseml.run.session import Found, Metric
from sparseml.run.settings.groups import RunSettings

CHECKPOINT_NAME = "checkpoint.pt"
_BLEU = Metric("bleu", "val/bleu", percent=False)
_MEASURED = [
    Metric(name, f"val/{name}", percent=False) for name in ("loss", "nll_loss", "perplexity")
]


@dataclass
class SequenceSession:
    """A model of translation or language modelling, with a corpus.

    :param loaded: the model's task, criterion and checkpoint
    :param gradient_batch: how many sentences, or blocks, a gradient is sampled on, at most
    :param evaluation_batch: how many there are in a batch of an evaluation, at most
    """

    run: RunSettings
    where: Processes
    model: nn.Module
    model_name: str
    loaded: Loaded
    training: Split
    validation: Split
    translating: TranslatingSettings
    gradient_batch: int
    evaluation_batch: int | None = None
    gradients_distributed: bool = False

    packages: Sequence[str] = ("fairseq", "ve-fairseq", "sacrebleu")
    weights_loaded: bool = True

    @property
    def metrics(self) -> Sequence[Metric]:
        """Return what :meth:`evaluate` finds."""
        return [_BLEU, *_MEASURED] if self.translating.bleu else _MEASURED

    @property
    def training_size(self) -> int:
        """Return how many sentences, or blocks, there are to sample gradients on."""
        return len(self.training)

    @property
    def evaluated_samples(self) -> int:
        """Return how many sentences, or blocks, :meth:`evaluate` measures on."""
        return len(self.validation)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, name: str = "evaluating") -> Found:
        """Return how good a model is on the validation split, the same in all processes.

        :return: as ``fairseq-train`` tells it: ``loss``, of the criterion, and ``nll_loss`` in bits
            a token, ``perplexity``; and ``bleu`` where it was asked for
        """
        where, criterion = self.where, self.loaded.criterion
        batches = self.validation.batches(self.evaluation_batch)[where.rank :: where.count]
        sums = [0.0] * 4
        with evaluating(model, criterion), shown_progress(name, len(batches), where.is_first) as go:
            translations = None
            if self.translating.bleu:
                translations = Translations(self.loaded.task, model, self.translating)
            for number, batch in enumerate(self.validation.loader(batches), start=1):
                batch = utils.apply_to_sample(lambda part: part.to(where.device), batch)
                with autocast_of(self.run, where)():
                    loss, size, told = criterion(model, batch)
                nll = told.get("nll_loss", loss)
                parts = (loss, size, nll, told["ntokens"])
                sums = [total + float(part) for total, part in zip(sums, parts, strict=True)]
                if translations is not None:
                    translations.add(batch)
                go(number, "")
        loss, size, nll, tokens = where.sum(sums)
        bits = nll / tokens / math.log(2)
        found = {"loss": loss / size / math.log(2), "nll_loss": bits}
        found["perplexity"] = 2**bits if bits < 1000 else math.inf
        return found if translations is None else {"bleu": translations.bleu(where), **found}

    def sample_inputs(self, count: int = 1) -> dict[str, Tensor]:
        """Return the first sentences of the validation split, as keywords for the model."""
        return dict(tensors_on(keywords(self.validation.first(count)), self.where.device))

    def training_batches(self) -> Iterable[Any]:
        """Return training sentences in random order, with the tokens to tell."""
        return self._shuffled(self.run.bn_retune_batch_size or self.evaluation_batch, True)

    def grad_sampler(self) -> dict[str, Any]:
        """Return what gradients are sampled on: batches, and the criterion's mean per token."""
        shared, seed, where = self.gradients_distributed, self.run.seed, self.where
        build = functools.partial(self._shuffled, self.gradient_batch, shared)
        rank = 0 if shared else where.rank
        return make_grad_sampler(
            lambda number: GradientBatches(build, (seed, rank, number), where.device),
            functools.partial(mean_loss, self.loaded.criterion, self.model),
        )

    def write_model(self, model: nn.Module, manager: Any, folder: Path) -> None:
        """Write a checkpoint that ``fairseq-generate`` reads, with dictionaries and recipe."""
        saved: nn.Module = unwrap_module(model, root=True)
        write_checkpoint(folder / CHECKPOINT_NAME, saved, self.loaded)
        for file in self.loaded.data.glob("dict*.txt"):
            with atomic_text(folder / file.name) as copied:
                copied.write(file.read_text(encoding="utf-8"))
        with atomic_text(folder / "recipe.yaml") as recipe:
            recipe.write(str(manager))

    def _shuffled(self, sentences: int | None, shared: bool) -> Pairs:
        batches = self.training.batches(sentences)
        if shared:
            batches = batches[self.where.rank :: self.where.count] or batches
        return Pairs(self.training.loader(batches, shuffled=True), self.model)


def mean_loss(criterion: Any, model: nn.Module, logits: Any, target: Tensor) -> Tensor:
    """Return the criterion's loss of a batch, divided as fairseq's trainer divides it.

    That is by the tokens to tell, or by the sentences where the criterion says ``sentence_avg``.

    :param logits: what a decoder gives first, ``[sentences, tokens, words]``
    :param target: ``[sentences, tokens]``, with -100 or the criterion's own number for padding
    :raises RunError: for a criterion that cannot compute a loss without the model
    """
    if not hasattr(criterion, "compute_loss"):
        raise RunError(
            f"gradients cannot be sampled by {type(criterion).__name__}, only by criterions with a "
            "compute_loss, as cross_entropy and label_smoothed_cross_entropy"
        )
    target = target.masked_fill(target == IGNORED, criterion.padding_idx)
    loss: Tensor = criterion.compute_loss(model, (logits, None), {"target": target})[0]
    by_sentence = getattr(criterion, "sentence_avg", False)
    return loss / (len(target) if by_sentence else int((target != criterion.padding_idx).sum()))


def open_session(settings: OneShotSettings, where: Processes) -> SequenceSession:
    """Load the model and find the sentences.

    :raises RunError: if there is no such model or data, or they do not fit together
    """
    run, data, name = settings.run, settings.data, settings.model.model
    if where.is_first:  # the others may come when it has begun to write
        require_room_for_run(experiment_folder(run, short_name(name)), run.overwrite)
    loaded = load_model(
        name, data.data_dir, data.source_lang, data.target_lang, settings.model.user_dir
    )
    if settings.translating.bleu:
        require_translating(loaded.task)
    opened = functools.partial(open_split, loaded, data.max_tokens)
    if shrinking(load_recipe(run.sparseml_recipe, run.recipe_args, run.effort)):
        make_shrinkable(loaded.model)
    return SequenceSession(
        run,
        where,
        loaded.model.float().to(where.device),
        short_name(name),
        loaded,
        opened(data.train_subset, "--train-subset", data.max_train_samples),
        opened(data.valid_subset, "--valid-subset", data.max_val_samples),
        settings.translating,
        settings.sampler.gs_batch_size,
        data.val_batch_size,
        settings.sampler.gs_distributed,
    )
