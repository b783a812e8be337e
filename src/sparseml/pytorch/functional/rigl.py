"""Moving the connections of a sparse network to where gradients ask for them."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseml.pytorch.functional.scores import magnitude
from sparseml.pytorch.functional.selection import lowest_mask, prune_count

__all__ = ["connections_to_keep", "drop_and_grow_scores"]


def connections_to_keep(size: int, pruned: int, replaced: float) -> int:
    """How many connections outlive an update.

    :param size: weights in the tensor
    :param pruned: how many of them the mask prunes
    :param replaced: the fraction of connections to drop and grow anew, in [0, 1]
    """
    active = size - pruned
    return active - prune_count(active, replaced)


def drop_and_grow_scores(weight: Tensor, gradient: Tensor, kept: int) -> Tensor:
    """Scores by which the largest weights stay, and those with the largest gradients fill up.

    Evci et al., "Rigging the lottery: making all tickets winners" (2020), algorithm 1. Connections
    that are dropped may grow again at once.

    :param weight: values, 0 where there is no connection
    :param gradient: of the loss in all weights, those without a connection included
    :param kept: how many weights stay for their magnitude
    :return: the highest number of the dtype for these, elsewhere the gradient's magnitude; shape of
        the weight, at least float32
    """
    scores = gradient.detach().abs()
    scores = scores if scores.dtype == torch.float64 else scores.float()
    stays = lowest_mask(magnitude(weight), weight.numel() - kept)
    return scores.masked_fill(stays, torch.finfo(scores.dtype).max)
