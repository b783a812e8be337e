"""Bringing parameters to a target, and telling what would come of it without doing it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn import Module

from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.masks.outcome import Change, Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Target
from sparseml.pytorch.utils.tensors.sharded import full_value
from sparseml.utils.interpolation import interpolate


def lent(modifier: Any) -> dict[str, str]:
    """Return what a pruner asks for when it is initialised → what happens without."""
    samples = modifier._get_method().samples
    return {"grad_sampler": "it refuses to prune"} if samples else {}


def reach(modifier: Any, module: Module, target: Target) -> None:
    """Prune to a target, in as many steps as the modifier's fields say."""
    count, curve = modifier._num_recomputations, modifier._recomputation_inter_func
    problem = modifier.problem(module)
    start, goal = problem.present(), problem.one_each(target)
    for step in range(1, count + 1):
        pairs = zip(start, goal, strict=True)
        asked = [interpolate(step, 0, count, low, high, curve) for low, high in pairs]
        outcome = modifier.method.outcomes(problem, [asked])[0]
        modifier.masks.take(outcome)
        modifier.notes += outcome.notes
        problem = replace(modifier.problem(module), near=outcome.decade)


def outcomes(modifier: Any, module: Module, targets: Sequence[Target]) -> Iterator[Outcome]:
    """Yield the complete outcome of each target; nothing is changed in the end.

    With a single step all come from one estimate; otherwise each is reached by itself and undone.
    """
    if modifier._num_recomputations == 1:
        problem = modifier.problem(module)
        old = {one.name: full_value(one.param) for one in problem.found}
        for outcome in modifier.method.outcomes(problem, targets):
            yield outcome.complete(old)
        return
    for target in targets:
        before = len(modifier.notes)
        with _undone(modifier.masks):
            modifier.apply_target(module, target)
            outcome = _present(modifier.masks)
        outcome.notes = tuple(modifier.notes[before:])
        yield outcome


@contextlib.contextmanager
def attached(modifier: Any, module: Module, kwargs: dict[str, Any]) -> Iterator[None]:
    """Within the block the modifier is initialised; after it, it is as it was."""
    if modifier.initialized:
        yield
        return
    try:
        modifier.initialize(module, **kwargs)
        yield
    finally:
        if modifier.initialized:
            modifier.finalize(module)


@contextlib.contextmanager
def _undone(masks: MaskSet) -> Iterator[None]:
    """Within the block masks are in force and may change; after it all is as it was."""
    values = [param.detach().clone() for param in masks.params]
    bits, enabled = masks.masks, masks.enabled
    masks.enabled = True
    try:
        yield
    finally:
        masks.enabled = enabled
        masks.restore(bits)
        with torch.no_grad():
            for param, value in zip(masks.params, values, strict=True):
                param.copy_(value)


def _present(masks: MaskSet) -> Outcome:
    parts = zip(masks.full_names, masks.masks, masks.params, strict=True)
    return Outcome(
        (name, Change(full_value(mask), full_value(param).clone())) for name, mask, param in parts
    )
