"""One recipe applied in one shot at several sparsities."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.timm.errors import RunError
from sparseml.timm.masks import masks_in_force

__all__ = ["Cut", "asked_sparsities", "cuts"]


@dataclass
class Cut:
    """A model pruned in one shot.

    :param sparsity: what was asked for; None where the recipe itself says
    :param masks: parameter name → mask, as it was before the recipe was finalised
    """

    sparsity: float | None
    model: nn.Module
    manager: ScheduledModifierManager
    masks: dict[str, Tensor]


def asked_sparsities(values: Sequence[float]) -> list[float | None]:
    """The sparsities to go through; none given is one pass with what the recipe says.

    :raises RunError: for one that is not strictly between 0 and 1
    """
    wrong = [value for value in values if not 0.0 < value < 1.0]
    if wrong:
        raise RunError(f"--sparsities must lie strictly between 0 and 1, found {wrong}")
    return list(values) or [None]


def cuts(
    load: Callable[[], ScheduledModifierManager],
    dense: nn.Module,
    sparsities: Sequence[float | None],
    **kwargs: Any,
) -> Iterator[Cut]:
    """Prune copies of a model, one for each sparsity.

    :param load: loads the recipe anew
    :param dense: the model; it stays as it is
    :param sparsities: in place of the recipe's; None leaves the recipe as it is
    :param kwargs: handed to the manager's ``apply``, such as ``grad_sampler``
    :raises RunError: if the recipe has no pruning modifier whose sparsity can be set
    """
    for sparsity in sparsities:
        manager, model = load(), copy.deepcopy(dense)
        if sparsity is not None:
            _set_sparsity(manager, sparsity)
        manager.apply(model, finalize=False, **kwargs)
        masks = {name: mask.clone() for name, mask in masks_in_force(manager).items()}
        manager.finalize(model)
        yield Cut(sparsity, model, manager, masks)


def _set_sparsity(manager: ScheduledModifierManager, sparsity: float) -> None:
    pruners = [m for m in manager.pruning_modifiers if hasattr(m, "final_sparsity")]
    if not pruners:
        raise RunError("--sparsities: the recipe has no pruning modifier with a final_sparsity")
    for modifier in pruners:
        if not isinstance(modifier.final_sparsity, float):
            raise RunError(
                f"--sparsities: final_sparsity of {type(modifier).__name__} is one per group of "
                f"parameters, {modifier.final_sparsity}; leave out --sparsities to use it"
            )
        modifier.init_sparsity = sparsity
        modifier.final_sparsity = sparsity
