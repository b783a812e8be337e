"""One recipe applied in one shot at several sparsities."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.utils.tensors.stats import tensor_list_sparsity
from sparseml.run.errors import RunError, few
from sparseml.run.masks import masks_in_force

_LOGGER = logging.getLogger(__name__)

Load = Callable[[], ScheduledModifierManager]


@dataclass
class Pruned:
    """A model pruned in one shot.

    :param sparsity: what was asked for; None where the recipe itself says
    :param masks: parameter name → mask
    :param notes: sentences on how it was pruned
    """

    sparsity: float | None
    model: nn.Module
    manager: ScheduledModifierManager
    masks: Mapping[str, Tensor]
    notes: Sequence[str] = ()

    @property
    def zeros(self) -> float:
        """Return the fraction of weights that the masks take away."""
        return tensor_list_sparsity(self.masks.values())


def asked_sparsities(values: Sequence[float]) -> list[float]:
    """Return the sparsities to go through, each once; none is one pass with what the recipe says.

    :raises RunError: for one that is not strictly between 0 and 1
    """
    wrong = [value for value in values if not 0.0 < value < 1.0]
    if wrong:
        raise RunError(f"--sparsities must lie strictly between 0 and 1, found {wrong}")
    return list(dict.fromkeys(values))


def sweep_recipe(
    load: Load, dense: nn.Module, sparsities: Sequence[float], **kwargs: Any
) -> Iterator[Pruned]:
    """Prune copies of a model, one for each sparsity.

    A recipe whose only modifier can sweep makes one estimate for all sparsities, such as the same
    Fisher matrices and the same elimination.

    :param load: loads the recipe anew
    :param dense: the model; it stays as it is
    :param sparsities: in place of the recipe's; none leaves the recipe as it is
    :param kwargs: handed to the manager's ``apply``, such as ``grad_sampler``
    :raises RunError: if the recipe has no pruning modifier whose sparsity can be set
    """
    if not sparsities:
        yield _applied(load(), dense, None, kwargs)
        return
    modifiers = list(_at(load(), sparsities[0]).iter_modifiers())
    if len(modifiers) == 1 and isinstance(modifiers[0], BasePruningModifier):
        for sparsity, outcome in modifiers[0].sweep(dense, sparsities, **kwargs):
            model = copy.deepcopy(dense)
            Outcome(outcome).write(model)
            masks = {name: mask for name, (mask, _) in outcome.items()}
            if empty := [name for name, mask in masks.items() if not bool(mask.any())]:
                _LOGGER.warning("sparsity %.4g: nothing is left of %s", sparsity, few(empty))
            yield Pruned(sparsity, model, _at(load(), sparsity), masks, outcome.notes)
        return
    for sparsity in sparsities:
        yield _applied(_at(load(), sparsity), dense, sparsity, kwargs)


def _applied(
    manager: ScheduledModifierManager,
    dense: nn.Module,
    sparsity: float | None,
    kwargs: dict[str, Any],
) -> Pruned:
    model = copy.deepcopy(dense)
    manager.apply(model, finalize=False, **kwargs)
    masks = {name: mask.clone() for name, mask in masks_in_force(manager).items()}
    manager.finalize(model)
    return Pruned(sparsity, model, manager, masks, notes_of(manager))


def notes_of(manager: ScheduledModifierManager) -> list[str]:
    """Return what pruning modifiers have to tell of what they chose, such as a dampening."""
    return [note for one in manager.iter_modifiers() for note in getattr(one, "notes", ())]


def _at(manager: ScheduledModifierManager, sparsity: float) -> ScheduledModifierManager:
    """Set the pruning modifiers of a manager to a sparsity."""
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
    return manager
