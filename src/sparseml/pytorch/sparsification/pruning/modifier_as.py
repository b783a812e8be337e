"""Regularizing activations towards sparsity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.activations import PENALTIES
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_names,
    declared_fields,
    field,
    fixed,
    of_types,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import (
    Loggers,
    PyTorchModifierYAML,
    ScheduledUpdateModifier,
)
from sparseml.pytorch.sparsification.pruning.layers.watched_penalties import (
    WatchedPenalties,
    as_weights,
    weights_by_entry,
    weights_by_layer,
)
from sparseml.sparsification.types import SparsificationTypes

__all__ = ["REG_FUNCTIONS", "REG_TENSORS", "ASRegModifier"]

REG_FUNCTIONS, REG_TENSORS = list(PENALTIES), ["inp", "out"]


@PyTorchModifierYAML()
@declared_fields()
class ASRegModifier(ScheduledUpdateModifier):
    """Add to the loss how far the activations of layers are from sparse, from start to end.

    | Sample yaml:
    |   !ASRegModifier
    |       layers: ['blocks.0.act', 'blocks.1.act']
    |       alpha: 0.0001
    |       start_epoch: 0.0
    |       end_epoch: 10.0

    :param layers: names and ``re:`` patterns of layers, ``__ALL_PRUNABLE__``, or ``__ALL__`` for
        every layer that has none of its own
    :param alpha: weight of the penalty, or a list with one for each entry of ``layers``
    :param layer_normalized: divide by the number of layers
    :param reg_func: ``l1``, ``l2``, ``relu`` or ``hs``, see
        :func:`~sparseml.pytorch.functional.activations.activation_penalty`
    :param reg_tens: whether the inputs (``inp``) or outputs (``out``) of the layers are meant
    :param update_frequency: epochs between two entries in the log
    :raises ValueError, TypeError: for several alphas, but not one for each entry
    """

    end_comparator: int = fixed(-1)
    layers: str | Iterable[str] = field(as_names)
    alpha: float | list[float] = field(as_weights)
    layer_normalized: bool = field(as_flag, default=False)
    reg_func: str = field(one_of(REG_FUNCTIONS), default="l1")
    reg_tens: str = field(one_of(REG_TENSORS), default="inp")
    start_epoch: float = -1.0
    end_epoch: float = -1.0
    update_frequency: float = -1.0

    def _set_up(self) -> None:
        weights_by_entry(self.layers, self.alpha)
        self._penalties: WatchedPenalties | None = None
        self._last: dict[str, Tensor] = {}

    sparsification_types = of_types(
        SparsificationTypes.activation_sparsity, SparsificationTypes.regularization
    )

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Find the layers and watch them.

        :raises RuntimeError: for an entry of ``layers`` that matches nothing
        """
        weights = weights_by_layer(module, self.layers, self.alpha)
        self._release()
        self._penalties = WatchedPenalties(module, weights, self.reg_func, self.reg_tens == "inp")
        super().initialize(module, epoch, loggers, **kwargs)

    def loss_update(
        self,
        loss: Tensor,
        module: Module,
        optimizer: Optimizer,
        epoch: float,
        steps_per_epoch: int,
        **kwargs: Any,
    ) -> Tensor:
        """The loss and, from start to end, the penalties of the last forward pass."""
        loss = super().loss_update(loss, module, optimizer, epoch, steps_per_epoch, **kwargs)
        if self._ended:
            self._release()
        found = [] if self._penalties is None else self._penalties.take()
        if not self._started and not self.start_pending(epoch, steps_per_epoch):
            return loss
        share = len(self._penalties or found) if self.layer_normalized else 1
        for _, weight, penalty in found:
            loss = loss + weight / share * penalty.to(loss.device)
        self._last = {name: penalty.detach() for name, _, penalty in found}
        return loss

    def log_update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Log the last penalty of each layer as ``ASRegModifier/<layer>``."""
        super().log_update(module, optimizer, epoch, steps_per_epoch)
        values = ((name, penalty.item()) for name, penalty in self._last.items())
        self.log_named_scalars(values, epoch=epoch, steps_per_epoch=steps_per_epoch)

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Stop watching."""
        super().finalize(module, reset_loggers, **kwargs)
        self._release()

    def _release(self) -> None:
        if self._penalties is not None:
            self._penalties.remove()
            self._penalties = None
