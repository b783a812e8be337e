"""Training sentences for gradients that a recipe samples while fairseq trains."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import torch

from sparseml.fairseq.errors import FairseqError
from sparseml.fairseq.inputs import Pairs, split_of
from sparseml.fairseq.session import mean_loss
from sparseml.pytorch.utils.batch_streams import GradientBatches


def sampling_modifiers(manager: Any) -> list[Any]:
    """Return the modifiers that prune by gradients of their own, and by nothing else."""
    # others, that can do with those of the training, take these
    return [m for m in manager.iter_modifiers() if "refuses" in m.needs().get("grad_sampler", "")]


def grad_sampler(trainer: Any, manager: Any, recipe: str) -> dict[str, Any]:
    """Return what gradients are sampled on: batches as of the training, and its criterion.

    They are drawn apart from those of the training, by ``--seed``, so that its own batches and
    random numbers stay as they are without a recipe. ``grad_sampler_kwargs`` may say
    ``batch_size``, how many sentences there are in one at most.

    :param trainer: whose training split is loaded
    :return: empty for a recipe that needs none
    :raises FairseqError: for a criterion, or a precision, that gradients cannot be sampled in
    """
    if not (asking := sampling_modifiers(manager)):
        return {}
    owner, criterion = type(asking[0]).__name__, trainer.criterion
    if not hasattr(criterion, "compute_loss"):
        raise FairseqError(
            f"{recipe}: {owner} samples gradients, which {type(criterion).__name__} does not know "
            "the loss of: take cross_entropy, label_smoothed_cross_entropy or srp"
        )
    model, settings = trainer.get_model(), trainer.cfg.dataset
    if next(model.parameters()).dtype == torch.float16:
        raise FairseqError(
            f"{recipe}: {owner} samples gradients, of which float16 loses the small ones: take "
            "--amp in place of --fp16"
        )
    rank, seed, numbers = trainer.data_parallel_rank, trainer.cfg.common.seed, itertools.count()

    def build(batch_size: int | None = None) -> GradientBatches:
        def pairs() -> Pairs:
            split = split_of(trainer.task, model, settings.train_subset, settings.max_tokens)
            batches = split.batches(batch_size or settings.batch_size)
            return Pairs(split.loader(batches, shuffled=True), model)

        return GradientBatches(pairs, (seed, rank, next(numbers)), trainer.device)

    given = {"data_loader_builder": build, "loss_fn": partial(mean_loss, criterion, model)}
    autocast = {"autocast": torch.float16} if trainer.cfg.common.amp else {}
    return {"grad_sampler": given | autocast}
