"""Units that were chosen to go: their gates fall while their weights stand still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sparseml.pytorch.units.gated import GatedUnits, Gates, remove_gated
from sparseml.pytorch.units.gated.frozen import FrozenSlices


class Fading:
    """The units of a model that go and that stay, from when they are chosen.

    :param units: in which some were chosen
    :param keeps: by key bool ``[units]``, True = stays
    :param zeroed: what goes is 0 already, and only held there
    """

    def __init__(
        self,
        model: nn.Module,
        units: tuple[GatedUnits, ...],
        keeps: Mapping[str, Tensor],
        zeroed: bool = False,
    ) -> None:
        self._model = model
        self._keeps = {one: keeps[one.key] for one in units}
        self._frozen = FrozenSlices(model, self._keeps)
        self.gates = None if zeroed else Gates(model, units)

    def lower(self, value: float) -> None:
        """Give all units that go a gate of ``value``."""
        assert self.gates is not None
        for units, keep in self._keeps.items():
            self.gates.lower(units.key, keep, value)

    def before_step(self, optimizer: Any) -> None:
        """Zero gradients and momenta of what goes."""
        self._frozen.before_step(optimizer)

    def after_step(self) -> None:
        """Give what goes the values back that it had."""
        self._frozen.after_step()

    def remove(self, optimizer: Any) -> int:
        """Take out what goes; return how many entries of tensors that were."""
        self.detach()
        return remove_gated(self._model, self._keeps, optimizer)

    def zero(self) -> None:
        """Set what goes to 0, which does without gates."""
        self.detach()
        self._frozen.clear()

    def detach(self) -> None:
        """Take the gates away."""
        if self.gates is not None:
            self.gates.detach()
        self.gates = None
