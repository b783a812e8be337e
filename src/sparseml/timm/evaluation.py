"""How good a model is on held-out images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.utils import accuracy
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sparseml.pytorch.utils.layers import evaluating
from sparseml.run.processes import Processes

_Autocast = Callable[[], AbstractContextManager[Any]]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Any,
    where: Processes,
    autocast: _Autocast = nullcontext,
    advance: Callable[[int, str], None] = lambda done, news: None,
) -> dict[str, float]:
    """Return mean loss (``loss``) and the share of right answers (``top1``, ``top5``, in 0 to 1).

    Every image counts once, also where several processes share them. The model's mode is kept.

    :param advance: told after every batch how many there were, and the accuracy so far
    """
    images_in_all = len(loader.dataset)
    sums = torch.zeros(4, dtype=torch.float64)
    seen = 0
    with evaluating(model):
        for number, (images, labels) in enumerate(loader, start=1):
            kept = _own_share(len(labels), seen, images_in_all, where)
            seen += len(labels)
            images, labels = (part[:kept].to(where.device) for part in (images, labels))
            if kept:
                with autocast():
                    logits = model(images)
                sums += _sums(logits.float(), labels)
            advance(number, f"top1 {float(sums[1] / sums[3].clamp(min=1)):.2%}")
    loss, top1, top5, count = where.sum(sums.tolist())
    return {"loss": loss / count, "top1": top1 / count, "top5": top5 / count}


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    top1, top5 = accuracy(logits, labels, topk=(1, 5))
    count = len(labels)
    right = [round(float(percent) * count / 100) for percent in (top1, top5)]
    return torch.tensor(
        [float(cross_entropy(logits, labels, reduction="sum")), *right, count], dtype=torch.float64
    )


def _own_share(batch: int, seen: int, images: int, where: Processes) -> int:
    """Return how many of a batch are no repeats, by which timm's sampler evens out processes."""
    if not where.several:
        return batch
    # the i-th image of this process is the (rank + i * count)-th of all
    own = -(-(images - where.rank) // where.count)
    return max(0, min(batch, own - seen))
