"""What the two forms of the quantization modifier have in common."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from torch.nn import Module

from sparseml.pytorch.sparsification.fields import as_number, field, of_types
from sparseml.pytorch.sparsification.modifier import Loggers, ScheduledModifier
from sparseml.sparsification.types import SparsificationTypes


def dict_or_empty(name: str, value: Any) -> dict[str, Any]:
    """Return a copy of a mapping, an empty one for None.

    :raises ValueError: for anything else
    """
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, found {value!r}")
    return dict(value or {})


ALLOW_INERT = "SPARSEML_ALLOW_INERT"
"""The environment variable that lets recipes run without what cannot act yet, if it is 1."""

_LOGGER = logging.getLogger(__name__)


def _optional_epoch(name: str, value: Any) -> float | None:
    return None if value is None else as_number(name, value)


class BaseQuantizationModifier(ScheduledModifier):
    """Keeps, checks and prints the fields; quantizing itself is not part of this package yet.

    :param end_epoch: must be -1: what is quantized stays so
    :param disable_quantization_observer_epoch: when to stop updating scales and zero points; None
        for never
    :param freeze_bn_stats_epoch: when to freeze the statistics of batch norms; None for never
    :raises ValueError: if observers are disabled or batch norms frozen before the start
    """

    _shows_start_as_given = False
    # the schedule is first checked before they are set
    _disable_quantization_observer_epoch: float | None = None
    _freeze_bn_stats_epoch: float | None = None

    def __init__(
        self,
        start_epoch: float,
        end_epoch: float,
        disable_quantization_observer_epoch: float | None,
        freeze_bn_stats_epoch: float | None,
    ) -> None:
        if end_epoch != -1:
            raise ValueError(
                f"end_epoch of QuantizationModifier must be -1, found {end_epoch}: what is "
                "quantized stays so"
            )
        super().__init__(start_epoch=start_epoch, end_epoch=-1.0, end_comparator=-1)
        if self._shows_start_as_given:
            self.start_epoch = start_epoch
        self.disable_quantization_observer_epoch = disable_quantization_observer_epoch
        self.freeze_bn_stats_epoch = freeze_bn_stats_epoch
        self.validate_schedule()

    disable_quantization_observer_epoch = field(_optional_epoch)
    freeze_bn_stats_epoch = field(_optional_epoch)

    inert = "quantization is not part of this package yet"
    """Why this modifier is loaded and cannot act."""

    sparsification_types = of_types(
        SparsificationTypes.quantization, SparsificationTypes.structured
    )

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Do nothing when disabled, or allowed to do nothing.

        :param kwargs: ``allow_inert`` lets the rest of a recipe run, with a warning; so does the
            environment variable ``SPARSEML_ALLOW_INERT=1``
        :raises NotImplementedError: otherwise
        """
        if self._enabled:
            if not (kwargs.get("allow_inert") or os.environ.get(ALLOW_INERT) == "1"):
                raise NotImplementedError(
                    f"{self.inert}, so !QuantizationModifier cannot act on a model. Take it out of "
                    "the recipe, or let the rest run without it (allow_inert=True, or in the "
                    f"environment {ALLOW_INERT}=1; or set enabled = False on each of "
                    "manager.quantization_modifiers before training), and quantize the trained "
                    "model with another tool"
                )
            _LOGGER.warning("%s: !QuantizationModifier does nothing in this run", self.inert)
        super().initialize(module, epoch, loggers, **kwargs)

    def validate_schedule(self) -> None:
        """Check the schedule; observers and batch norms must not be stopped before the start."""
        super().validate_schedule()
        for name in ("disable_quantization_observer_epoch", "freeze_bn_stats_epoch"):
            epoch = getattr(self, f"_{name}")
            if epoch is not None and epoch < self._start_epoch:
                raise ValueError(
                    f"{name} must not be before start_epoch {self._start_epoch}, found {epoch}"
                )

    def advance_epochs(self, ref_start_epoch: float | None = None) -> None:
        """Shift the schedule, observers and batch norms included, by ``ref_start_epoch``."""
        if ref_start_epoch is not None:
            for name in ("_disable_quantization_observer_epoch", "_freeze_bn_stats_epoch"):
                epoch = getattr(self, name)
                if epoch is not None:
                    setattr(self, name, max(0.0, epoch) + ref_start_epoch)
        super().advance_epochs(ref_start_epoch)
