"""What a pruning modifier will do, asked of the modifier itself, without training anything.

When a modifier acts is asked of its ``schedule``, and what it selects of its method ``selects``.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch.nn import Module

from sparseml.optim.schedule import ONE_SHOT
from sparseml.pytorch.utils.params import NamedLayerParam


@runtime_checkable
class Prunes(Protocol):
    """What asks for a sparsity: every pruning modifier, initialised or not.

    ``global_sparsity`` tells whether it is that of all parameters together.
    """

    global_sparsity: Any

    def selects(self, module: Module) -> list[NamedLayerParam]:
        """Return the parameters that are pruned; changes nothing.

        :raises RuntimeError: for an entry that matches nothing
        :raises ValueError: if nothing is selected at all, or the masks do not fit the parameters
        """

    def sparsities_at(self, module: Module, epoch: float) -> list[float | None]:
        """Return the sparsity asked for at ``epoch``, for each parameter that is selected.

        It is None where the modifier asks for none. Changes nothing.

        :param epoch: infinity for the sparsity to end with
        """

    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> Any:
        """Return the sparsity asked for at ``epoch`` as far as it can be told without a model.

        One number for all parameters, several, or None.
        """


def asked_sparsities(modifier: Prunes, epoch: float, steps_per_epoch: int) -> list[float | None]:
    """Return the sparsities that a pruning modifier asks for at ``epoch``, without a model.

    :return: one where all parameters shall have the same
    """
    asked = modifier.get_applied_sparsity_for_epoch(epoch, steps_per_epoch)
    return list(asked) if isinstance(asked, (list, tuple)) else [asked]


def final_sparsities(
    modifier: Prunes, module: Module
) -> list[tuple[NamedLayerParam, float | None]]:
    """Return the parameters that a pruning modifier selects, each with its sparsity at the end.

    :raises RuntimeError: for an entry of ``params`` that matches nothing
    :raises ValueError: if nothing is selected at all, or the masks do not fit the parameters
    """
    asked = modifier.sparsities_at(module, ONE_SHOT)
    return list(zip(modifier.selects(module), asked, strict=True))
