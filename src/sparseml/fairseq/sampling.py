"""Training sentences for gradients that a recipe samples while fairseq trains."""

from __future__ import annotations

from functools import partial
from typing import Any

from sparseml.fairseq.inputs import Pairs, split_of
from sparseml.fairseq.session import mean_loss
from sparseml.pytorch.utils.batch_streams import GradientBatches, make_grad_sampler


def grad_sampler(trainer: Any) -> dict[str, Any]:
    """Return what gradients are sampled on: batches as of the training, and its criterion.

    They are drawn apart from those of the training, by ``--seed``, so that its own batches and
    random numbers stay as they are without a recipe.

    :param trainer: whose training split is loaded
    """
    model, settings = trainer.get_model(), trainer.cfg.dataset
    rank = trainer.data_parallel_rank

    def build() -> Pairs:
        split = split_of(trainer.task, model, settings.train_subset, settings.max_tokens)
        return Pairs(split.loader(split.batches(settings.batch_size), shuffled=True), model)

    seed = trainer.cfg.common.seed
    return make_grad_sampler(
        lambda number: GradientBatches(build, (seed, rank, number), trainer.device),
        partial(mean_loss, trainer.criterion, model),
    )
