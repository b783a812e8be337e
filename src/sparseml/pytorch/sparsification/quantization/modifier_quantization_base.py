"""What the two forms of the quantization modifier have in common."""

from __future__ import annotations

from typing import Any

from torch.nn import Module

from sparseml.pytorch.sparsification.fields import as_number, field, of_types
from sparseml.pytorch.sparsification.modifier import Loggers, ScheduledModifier
from sparseml.sparsification.types import SparsificationTypes

__all__ = ["BaseQuantizationModifier", "copied_list", "optional_epoch"]


def copied_list(name: str, value: Any) -> list[Any] | None:
    """A list of names, or None.

    :raises ValueError: for anything else
    """
    if value is None:
        return None
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise ValueError(f"{name} must be a list, found {value!r}")
    return list(value)


def optional_epoch(name: str, value: Any) -> float | None:
    """An epoch, or None for never.

    :raises ValueError: for a text that is no number
    """
    return None if value is None else as_number(name, value)


class BaseQuantizationModifier(ScheduledModifier):
    """Keeps, checks and prints the fields; quantizing itself is not part of this package yet.

    :param end_epoch: must be -1: what is quantized stays so
    :raises ValueError: if observers are disabled or batch norms frozen before the start
    """

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
        self.disable_quantization_observer_epoch = disable_quantization_observer_epoch
        self.freeze_bn_stats_epoch = freeze_bn_stats_epoch
        self.validate_schedule()

    disable_quantization_observer_epoch = field(
        optional_epoch,
        doc="When to stop updating scales and zero points; None for never.",
    )
    freeze_bn_stats_epoch = field(
        optional_epoch,
        doc="When to freeze the statistics of batch norms; None for never.",
    )

    sparsification_types = of_types(
        SparsificationTypes.quantization, SparsificationTypes.structured
    )

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Does nothing when disabled.

        :raises NotImplementedError: otherwise
        """
        if self._enabled:
            raise NotImplementedError(
                "quantization is not part of this package yet, so !QuantizationModifier cannot act "
                "on a model. Take it out of the recipe, or set enabled = False on each of "
                "manager.quantization_modifiers before training, and quantize the trained model "
                "with another tool"
            )
        super().initialize(module, epoch, loggers, **kwargs)

    def validate_schedule(self) -> None:
        """Also demands that observers and batch norms are not stopped before the start."""
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
