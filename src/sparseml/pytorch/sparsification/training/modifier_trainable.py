"""Freezing and unfreezing parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.sparsification.fields import as_flag, declared_fields, field, fixed
from sparseml.pytorch.sparsification.modifier import Loggers, PyTorchModifierYAML, ScheduledModifier
from sparseml.pytorch.sparsification.training.selected_params import SelectedParams


@PyTorchModifierYAML()
@declared_fields()
class TrainableParamsModifier(SelectedParams, ScheduledModifier):
    """Makes parameters trainable, or freezes them, from start to end.

    | Sample yaml:
    |   !TrainableParamsModifier
    |       params: ["re:blocks.*"]
    |       trainable: False
    |       start_epoch: 0.0
    |       end_epoch: 10.0

    :param trainable: whether the parameters shall have gradients
    """

    params: str | Iterable[str]
    trainable: bool = field(as_flag)
    params_strict: bool = True
    start_epoch: float = -1.0
    end_epoch: float = -1.0
    end_comparator: int = fixed(-1)

    _progress = ("_original",)

    def _set_up(self) -> None:
        self._original: dict[str, bool] = {}  # what was trainable before the start

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Find the parameters, and act at once if the start is due.

        :raises RuntimeError: with ``params_strict``, for entries that match nothing
        """
        if not self._initialized:
            self._original = {}
        super().initialize(module, epoch, loggers, **kwargs)
        for name, param in self._named_parameters():
            self._original.setdefault(name, param.requires_grad)
        known = self.steps_resolved or math.isinf(epoch)
        if known and self.start_pending(epoch, steps_per_epoch=-1):
            self._set_trainable()

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Set ``requires_grad`` at the start, put it back at the end."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if self.start_pending(epoch, steps_per_epoch):
            self._set_trainable()
        if self.end_pending(epoch, steps_per_epoch):
            self._restore()

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state, and with it what is trainable now."""
        super().load_progress_state(state)
        if self._started and not self._ended:
            self._set_trainable()
        else:
            self._restore()

    def _set_trainable(self) -> None:
        for _, param in self._named_parameters():
            param.requires_grad_(self.trainable)
            if not self.trainable:
                param.grad = None

    def _restore(self) -> None:
        for name, param in self._named_parameters():
            param.requires_grad_(self._original[name])
