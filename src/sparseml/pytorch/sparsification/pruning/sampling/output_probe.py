r"""Random combinations of a model's outputs, whose gradients tell how pruning would change them.

With random signs :math:`z` the gradient of :math:`z^T f(w)` is :math:`J^T z`, and the mean of its
products with itself is :math:`J^T J`: the Fisher matrix of a model that draws its outputs from a
normal distribution around :math:`f(w)` (the Gauss-Newton matrix of the squared distance to what the
dense model gives). Where a network fits its training data the gradients of the loss vanish but for
a few samples; these do not, and they need no labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseml.pytorch.sparsification.pruning.sampling.held_out import Batch, count_samples


def probe_outputs(output: Any, batch: Batch, each: bool, entropy: Sequence[int]) -> Tensor:
    """Return the sum of a model's outputs, each with a random sign; a scalar, like a loss.

    :param output: a tensor; a tuple or list, of which the first tensor counts that is no scalar; or
        a mapping, of which all scores count (``logits`` in the name) or else all tensors but the
        loss
    :param batch: that it is of; tokens that its ``attention_mask`` leaves out do not count
    :param each: whether each sample gives a gradient; then it is a mean over samples, as losses
        are. Else the gradient of n samples is that of one times the root of n, as n independent
        ones add up to, so that its products with itself have the same mean
    :param entropy: the same numbers give the same signs
    :raises RuntimeError: for an output without tensors of floating point
    """
    parts = _scores(output)
    if not parts:
        raise RuntimeError(
            "gradients_of: outputs needs a model that returns a tensor of floating point, or a "
            f"tuple or mapping with one, found {type(output).__name__}; use gradients_of: loss"
        )
    samples = count_samples(batch)
    generator = torch.Generator(parts[0].device)
    generator.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
    mask = batch[1].get("attention_mask")
    sums = [_combined(part.float(), mask, generator) for part in parts]
    return torch.stack(sums).sum() / (samples if each else math.sqrt(samples))


def _scores(output: Any) -> list[Tensor]:
    if isinstance(output, (tuple, list)):
        return [one for one in output if _is_score(one)][:1]
    named = dict(output) if isinstance(output, Mapping) else {"": output}
    found = {str(name): value for name, value in named.items() if _is_score(value)}
    return [value for name, value in found.items() if "logits" in name] or list(found.values())


def _is_score(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0


def _combined(output: Tensor, mask: Any, generator: torch.Generator) -> Tensor:
    bits = torch.randint(2, output.shape, generator=generator, device=output.device)
    signs = bits.to(output.dtype) * 2 - 1
    of_tokens = isinstance(mask, Tensor) and mask.ndim == 2 and output.ndim > 2
    if of_tokens and output.shape[:2] == mask.shape:
        signs *= (mask != 0).to(output).reshape(*mask.shape, *[1] * (output.ndim - 2))
    return (signs * output).sum()
