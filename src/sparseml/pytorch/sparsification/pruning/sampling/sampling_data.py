"""What the first batch of a ``grad_sampler`` gives a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparseml.pytorch.sparsification.pruning.sampling.given import call_builder, parts_of
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import SamplingData


def first_inputs(given: Any, keywords: Mapping[str, Any], owner: str) -> Any:
    """Return what the first batch of a ``grad_sampler`` gives the model, to look at the model with.

    :param keywords: for its ``data_loader_builder``
    :param owner: the modifier, for messages
    :return: a tuple of positional or a dict of keyword arguments; None for a batch with both, as a
        model is looked at with one of the two
    :raises RuntimeError: for a ``grad_sampler`` that lacks a key, has an unknown one, or no data
    """
    builder, _ = parts_of(given, owner)
    data = SamplingData(lambda: call_builder(builder, keywords), owner)
    with data.random_numbers.drawing():
        args, named, _ = data.next_batch()
    return dict(named) if named and not args else (tuple(args) if not named else None)
