r"""Random combinations of a model's outputs, whose gradients tell how pruning would change them.

With random signs :math:`z` the gradient of :math:`z^T f(w)` is :math:`J^T z`, and the mean of its
products with itself is :math:`J^T J`: the Fisher matrix of a model that draws its outputs from a
normal distribution around :math:`f(w)` (the Gauss-Newton matrix of the squared distance to what the
dense model gives). Where a network fits its training data the gradients of the loss vanish but for
a few samples; these do not, and they need no labels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseml.pytorch.sparsification.pruning.sampling.held_out import (
    Batch,
    count_class_labels,
    count_samples,
)

_NO_LABEL = -100


def probe_outputs(output: Any, batch: Batch, each: bool, entropy: Sequence[int]) -> Tensor:
    """Return the sum of a model's outputs, each with a random sign; a scalar, like a loss.

    :param output: a tensor; a tuple, of which the first tensor counts that is no scalar, as of a
        loss; a list or named tuple, of which all do; or a mapping, of which all count but losses
        and, where there are logits, hidden states and what is pooled of them
    :param batch: that it is of; tokens whose label is -100, or, without labels for each,
        that the ``attention_mask`` (of a decoder its own) leaves out, do not count
    :param each: whether each sample gives a gradient; then it is a mean over samples, as losses
        are. Else the gradient of n samples is that of one times the root of n, as n independent
        ones add up to, so that its products with itself have the same mean
    :param entropy: the same numbers give the same signs
    :raises RuntimeError: for an output without tensors of floating point
    """
    scores = _scores(output)
    if not scores:
        raise RuntimeError(
            "gradients_of: outputs needs a model that returns a tensor of floating point, or a "
            f"tuple or mapping with one, found {type(output).__name__}; use gradients_of: loss, "
            "with numbers in place of effort"
        )
    samples, mask = count_samples(batch), _mask_of(batch[1])
    generator = torch.Generator(next(iter(scores.values())).device)
    generator.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
    sums = []
    for name, part in scores.items():
        of_tokens = part.ndim > 2 or name in ("start_logits", "end_logits")
        sums.append(_combined(part, mask if of_tokens else None, generator))
    total: Tensor = functools.reduce(torch.add, sums)
    return total / (samples if each else math.sqrt(samples))


def class_scores(output: Any, batch: Batch) -> Tensor | None:
    """Return the scores of a classifier, ``[N, classes]``; None for what is none.

    It is one whose only output is of two dimensions, for samples that have a whole number as
    label: the third of the batch, or its keyword ``labels``.
    """
    found = [*_scores(output).values()]
    if len(found) != 1 or found[0].ndim != 2 or found[0].shape[1] < 2:
        return None
    return found[0] if count_class_labels(batch) == len(found[0]) else None


def _scores(output: Any) -> dict[str, Tensor]:
    if isinstance(output, (tuple, list)):
        found = {str(place): one for place, one in enumerate(output) if _is_score(one)}
        return dict([*found.items()][:1]) if type(output) is tuple else found
    named = dict(output) if isinstance(output, Mapping) else {"": output}
    scores = {str(key): one for key, one in named.items() if _is_score(one)}
    scores = {key: one for key, one in scores.items() if "loss" not in key}
    if any("logits" in key for key in scores):
        inner = ("hidden_state", "pooler_output")
        scores = {key: one for key, one in scores.items() if not any(i in key for i in inner)}
    return scores


def _is_score(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0


def _mask_of(keywords: Mapping[str, Any]) -> Tensor | None:
    """Where outputs for tokens count, ``[samples, tokens]``; None where it is not told."""
    labels = keywords.get("labels")
    if isinstance(labels, Tensor) and labels.ndim == 2 and not labels.is_floating_point():
        return labels != _NO_LABEL
    decoder = any(name.startswith("decoder_") for name in keywords)
    mask = keywords.get("decoder_attention_mask" if decoder else "attention_mask")
    return mask != 0 if isinstance(mask, Tensor) and mask.ndim == 2 else None


def _combined(output: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
    values = output if output.dtype == torch.float64 else output.float()
    signs = torch.randint(
        2, values.shape, generator=generator, device=values.device, dtype=values.dtype
    )
    counts = ~values.isneginf()  # which some models give for what cannot be
    if mask is not None and values.shape[:2] == mask.shape:
        counts &= mask.to(values.device).reshape(*mask.shape, *[1] * (values.ndim - 2))
    return torch.where(counts, values * signs.mul_(2).sub_(1), 0).sum()
