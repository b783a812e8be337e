"""What a structured pruning modifier has found in a model, and does with it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.budgets import UnitShares
from sparseml.pytorch.functional.patterns import Member, Units
from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.sampling.sampling_data import first_inputs
from sparseml.pytorch.sparsification.pruning.structured.costs import MEASURES, time_share
from sparseml.pytorch.sparsification.pruning.structured.goals import Goal, as_goal, plan_for
from sparseml.pytorch.sparsification.pruning.structured.unit_scores import kept_units, method_for
from sparseml.pytorch.units import positions
from sparseml.pytorch.units.probing import sample_inputs
from sparseml.pytorch.units.removable import Removable, removable_units, remove_units
from sparseml.pytorch.utils.layer_kinds import to_out_in
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.utils.constants import STRUCTURED_TOKEN


class FoundUnits:
    """The units of a model that a modifier prunes.

    :param module: the model
    :param modifier: a ``StructuredPruningModifier`` with ``params: __STRUCTURED__``
    :param lent: what it was initialised with
    :raises ValueError: for a model without units, and one that does not say what it takes
    """

    def __init__(self, module: Module, modifier: Any, lent: Mapping[str, Any]) -> None:
        self.model, owner = unwrap_module(module, root=True), type(modifier).__name__
        self._goal: Goal | None = as_goal(modifier.final_sparsity)
        self.inputs = _inputs(lent, modifier, owner)
        try:
            found = removable_units(self.model, self.inputs).found
        except ValueError as error:
            raise ValueError(f"params {STRUCTURED_TOKEN} of {owner}: {error}") from error
        names = list(dict.fromkeys(name for one in found for name in one.group.masked))
        kept = {one.name for one in modifier.select(self.model, names)}
        self.units = [one for one in found if kept.issuperset(one.group.masked)]
        left = list(dict.fromkeys(name for one in self.units for name in one.group.masked))
        if not left:
            raise ValueError(
                f"exclude of {owner} leaves nothing of the {len(found)} places that "
                f"{STRUCTURED_TOKEN} finds"
            )
        self.selected = modifier.select(self.model, left)
        places = positions([one.group for one in self.units], self.selected)
        self.pattern = Units(tuple(tuple(Member(*member) for member in group) for group in places))
        plan = None
        if self._goal is not None:
            seconds = float(modifier.timing_seconds)
            plan = plan_for(self._goal, self.units, self.batch, seconds)
        self.method = method_for(modifier.score, self.units, plan, int(modifier.num_grads))

    @property
    def initial(self) -> list[int]:
        """How many units there are in each group."""
        return [one.group.size for one in self.units]

    def budget(self, initial: list[int]) -> UnitShares:
        """Return how much goes of each group.

        :param initial: how many units there were
        """
        return UnitShares(tuple(initial), tuple(self.method.shares))

    def sparsities(self, target: float) -> list[float | None]:
        """Return the sparsity of each parameter at a target; None where it is not decided yet."""
        if not self.method.planned:
            return [None] * len(self.selected)
        kept = [1.0] * len(self.selected)
        shares = zip(self.pattern.groups, self.initial, self.method.shares, strict=True)
        for group, size, share in shares:
            gone = min(prune_count(size, share * target), size - 1)
            for member in group:
                inside = float((member.units >= 0).double().mean())
                kept[member.tensor] *= 1.0 - inside * gone / size
        return [1.0 - one for one in kept]

    def remove(self, module: Module, masks: MaskSet, optimizer: Any) -> float | None:
        """Take out what is masked.

        :return: the share of the cost that is left, of a goal
        """
        model = unwrap_module(module, root=True)
        pairs = zip(masks.found, masks.masks, strict=True)
        turned = [to_out_in(one.layer, one.param_name, mask) for one, mask in pairs]
        kept = kept_units(self.pattern, turned)
        keeps: dict[Removable, Tensor] = dict(zip(self.units, kept, strict=True))
        before = None if self._goal is None else copy.deepcopy(model)
        remove_units(model, keeps, optimizer)
        if self._goal is None or before is None:
            return None
        if self._goal.kind == "speedup":
            return time_share(before, model, self.batch())
        measure, batch = MEASURES[self._goal.kind], self.batch()
        return measure(model, batch) / measure(before, batch)

    def batch(self) -> Any:
        """Return what the model is run on to measure it."""
        return sample_inputs(self.model) if self.inputs is None else self.inputs


def _inputs(lent: Mapping[str, Any], modifier: Any, owner: str) -> Any:
    """A batch for the model: one that is given, or the first of the sampler; None for neither."""
    if lent.get("example_inputs") is not None:
        return lent["example_inputs"]
    given = lent.get("grad_sampler")
    if given is None:
        return None
    return first_inputs(given, dict(modifier.grad_sampler_kwargs or {}), owner)
