r"""Random combinations of a model's outputs, whose gradients tell how pruning would change them.

With random signs :math:`z` the gradient of :math:`z^T f(w)` is :math:`J^T z`, and the mean of its
products with itself is :math:`J^T J`: the Fisher matrix of a model that draws its outputs from a
normal distribution around :math:`f(w)` (the Gauss-Newton matrix of the squared distance to what the
dense model gives). Where a network fits its training data the gradients of the loss vanish but for
a few samples; these do not, and they need no labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseml.pytorch.sparsification.pruning.sampling.held_out import Batch, count_samples


def output_probe(batch: Batch, each: bool, entropy: Sequence[int]) -> Callable[[Any, Any], Tensor]:
    """Return a function like a loss: the sum of a model's outputs, each with a random sign.

    Of an output it takes a tensor; the first entry of a tuple; of a mapping all scores (``logits``
    in the name), or else all tensors but the loss. Tokens that the batch's ``attention_mask``
    leaves out do not count. It raises a RuntimeError for an output without floating point.

    :param batch: that the output will be of
    :param each: whether each sample gives a gradient; then it is a mean over samples, as losses
        are. Else the gradient of n samples is that of one times the root of n, as n independent
        ones add up to, so that its products with itself have the same mean
    :param entropy: the same numbers give the same signs
    """
    samples = count_samples(batch)
    scale = 1 / (samples if each else math.sqrt(samples))
    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])

    def probe(output: Any, _target: Any) -> Tensor:
        parts = _scores(output)
        if not parts:
            raise RuntimeError(
                "gradients_of: outputs needs a model that returns a tensor of floating point, or a "
                f"tuple or mapping with one, found {type(output).__name__}; use gradients_of: loss"
            )
        generator = torch.Generator(parts[0].device).manual_seed(seed)
        mask = batch[1].get("attention_mask")
        sums = [_combined(part.float(), mask, generator) for part in parts]
        return torch.stack(sums).sum() * scale

    return probe


def _scores(output: Any) -> list[Tensor]:
    if isinstance(output, tuple):
        output = output[0] if output else None
    if not isinstance(output, Mapping):
        output = {"": output}
    found = {
        str(name): value
        for name, value in output.items()
        if isinstance(value, Tensor) and value.is_floating_point() and name != "loss"
    }
    scores = [value for name, value in found.items() if "logits" in name]
    return scores or list(found.values())


def _combined(output: Tensor, mask: Any, generator: torch.Generator) -> Tensor:
    bits = torch.randint(2, output.shape, generator=generator, device=output.device)
    signs = bits.to(output.dtype) * 2 - 1
    of_tokens = isinstance(mask, Tensor) and mask.ndim == 2 and output.ndim > 2
    if of_tokens and output.shape[:2] == mask.shape:
        signs *= (mask != 0).to(output).reshape(*mask.shape, *[1] * (output.ndim - 2))
    return (signs * output).sum()
