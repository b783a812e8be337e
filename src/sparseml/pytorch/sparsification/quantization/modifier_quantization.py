"""The quantization modifier with quantization schemes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from sparseml.pytorch.sparsification.fields import as_flag, field
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.quantization import legacy_modifier_quantization as legacy
from sparseml.pytorch.sparsification.quantization.modifier_quantization_base import (
    BaseQuantizationModifier,
    as_given,
    copied_list,
)
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = ["QuantizationModifier"]

_SCHEMES = ("default", "deepsparse", "tensorrt")


def _class_for(fields: dict[str, Any]) -> type:
    """The class that a recipe's fields are meant for."""
    # Composing recipes gives every modifier an end, this one too, where it means nothing.
    if "end_epoch" in fields:
        fields["end_epoch"] = -1.0
    older = set(inspect.signature(legacy.QuantizationModifier).parameters)
    newer = set(inspect.signature(QuantizationModifier).parameters)
    return legacy.QuantizationModifier if fields.keys() & (older - newer) else QuantizationModifier


def _checked_scheme(name: str, value: Any) -> Any:
    if value is None or isinstance(value, Mapping) or value in _SCHEMES:
        return value
    raise ValueError(
        f"{name} must be {quoted_list(_SCHEMES)} or a mapping, found {value!r}"
        f"{did_you_mean(str(value), _SCHEMES)}"
    )


def _copied_mapping(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, found {value!r}")
    return dict(value or {})


@PyTorchModifierYAML(swap_class_by_state_fn=_class_for)
class QuantizationModifier(BaseQuantizationModifier):
    """Describes quantization-aware training by schemes; does not perform it yet.

    | Sample yaml:
    |   !QuantizationModifier
    |       start_epoch: 0.0
    |       scheme: default
    |       ignore: ['classifier']
    |       disable_quantization_observer_epoch: 2.0
    |       freeze_bn_stats_epoch: 3.0

    :param scheme: ``default``, ``deepsparse``, ``tensorrt``, or what to do with weights, inputs and
        outputs
    :param scheme_overrides: names or classes of layers → their scheme
    :param ignore: names or classes of layers to leave as they are
    :param disable_quantization_observer_epoch: when to stop updating scales and zero points
    :param freeze_bn_stats_epoch: when to freeze the statistics of batch norms
    :param model_fuse_fn_name: how layers are fused before
    :param model_fuse_fn_kwargs: arguments of the function that fuses
    :param num_calibration_steps: batches to calibrate with after training; None for all
    :param strict: demand that everything named exists
    :param end_epoch: must be -1
    """

    def __init__(
        self,
        start_epoch: float = -1.0,
        scheme: str | dict[str, Any] | None = None,
        scheme_overrides: dict[str, Any] | None = None,
        ignore: Iterable[str] | None = None,
        disable_quantization_observer_epoch: float | None = None,
        freeze_bn_stats_epoch: float | None = None,
        model_fuse_fn_name: str | None = None,
        model_fuse_fn_kwargs: dict[str, Any] | None = None,
        num_calibration_steps: int | None = None,
        strict: bool = True,
        end_epoch: float = -1.0,
    ) -> None:
        super().__init__(
            start_epoch, end_epoch, disable_quantization_observer_epoch, freeze_bn_stats_epoch
        )
        self.scheme = scheme
        self.scheme_overrides = scheme_overrides
        self.ignore = [] if ignore is None else ignore
        self.model_fuse_fn_name = model_fuse_fn_name
        self.model_fuse_fn_kwargs = model_fuse_fn_kwargs
        self.num_calibration_steps = num_calibration_steps
        self.strict = strict

    scheme = field(_checked_scheme)
    scheme_overrides = field(_copied_mapping)
    ignore = field(copied_list)
    model_fuse_fn_name = field(as_given)
    model_fuse_fn_kwargs = field(_copied_mapping)
    num_calibration_steps = field(as_given)
    strict = field(as_flag)
