"""Making a structurally pruned model smaller while it trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.optim.schedule import Schedule
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_number,
    declared_fields,
    field,
    fixed,
    ignored,
    of_types,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import (
    PyTorchModifierYAML,
    ScheduledModifier,
)
from sparseml.pytorch.sparsification.pruning.settings.structure_groups import as_dependency_map
from sparseml.pytorch.units import STRUCTURE_DIMS, compress_strucure_pruned_module
from sparseml.sparsification.types import SparsificationTypes

__all__ = ["LayerThinningModifier", "compress_strucure_pruned_module"]


def _ascending(name: str, value: Any) -> list[float]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list of epochs, found {value!r}")
    epochs = [as_number(name, epoch) for epoch in value]
    if any(epoch < 0 for epoch in epochs) or epochs != sorted(set(epochs)):
        raise ValueError(f"{name} must be epochs in ascending order, each once, found {value!r}")
    return epochs


@PyTorchModifierYAML()
@declared_fields()
class LayerThinningModifier(ScheduledModifier):
    """Removes the filters or channels that a structured pruning modifier has set to zero.

    This happens at each of ``update_epochs``, or at the end of the run if there are none. The
    start itself changes nothing. For the map see ``sparseml.pytorch.units.dependency_groups``.

    | Sample yaml:
    |   !LayerThinningModifier
    |       param_group_dependency_map:
    |           'stem.weight,norm.weight,norm.bias': ['head.weight']
    |       structure_type: filter
    |       update_epochs: [5.0, 10.0]

    :param param_group_dependency_map: key: comma separated names of the parameters that are zero
        in the same units; value: names of the parameters whose opposite dimension follows
    :param structure_type: ``filter`` or ``channel``
    :param update_epochs: when to remove, in ascending order
    :param strict: demand that all names exist and that groups are zero in the same units
    :param end_epoch: ignored, there is no end
    :raises ValueError: for fields of another form
    """

    _update_epochs: list[float]
    _param_group_dependency_map: dict[str, list[str]]
    _structure_type: str
    _strict: bool
    _progress = ("_last_update_epoch", "_thinned")

    param_group_dependency_map: Mapping[str, Sequence[str]] = field(as_dependency_map)
    structure_type: str = field(one_of(STRUCTURE_DIMS), default="filter")
    start_epoch: float = -1.0
    update_epochs: Iterable[float] = field(_ascending, default=())
    strict: bool = field(as_flag, default=True)
    end_epoch: float = ignored(default=-1.0)
    end_comparator: None = fixed(None)

    def _set_up(self) -> None:
        self._thinned = False

    sparsification_types = of_types(SparsificationTypes.pruning, SparsificationTypes.structured)

    @property
    def resizes(self) -> bool:
        """Return whether something is removed before training is over."""
        return bool(self._update_epochs)

    def advance_epochs(self, ref_start_epoch: float | None = None) -> None:
        """Shift start and ``update_epochs``, as when the modifier joins a longer recipe."""
        super().advance_epochs(ref_start_epoch)
        if ref_start_epoch is not None:
            self._update_epochs = [epoch + ref_start_epoch for epoch in self._update_epochs]

    @property
    def schedule(self) -> Schedule:
        """When this modifier acts, as a value."""
        return replace(super().schedule, also=tuple(self._update_epochs))

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Remove what is pruned, if an update epoch has come."""
        last = self._last_update_epoch
        super().update(module, optimizer, epoch, steps_per_epoch)
        if any(last < due <= epoch for due in self._update_epochs):
            self._thin(module, optimizer)
            self._thinned = True

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Remove what is pruned, if that has never happened.

        :param kwargs: ``optimizer`` whose state follows, if it is to be used any more
        """
        super().finalize(module, reset_loggers, **kwargs)
        if module is not None and self._enabled and not self._thinned:
            self._thin(module, kwargs.get("optimizer"))

    def _thin(self, module: Module, optimizer: Optimizer | None) -> None:
        compress_strucure_pruned_module(
            module, self._param_group_dependency_map, self._structure_type, optimizer, self._strict
        )
