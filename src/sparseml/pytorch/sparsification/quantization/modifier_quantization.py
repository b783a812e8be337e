"""The quantization modifier with quantization schemes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_given,
    declared_fields,
    field,
    list_or_none,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.quantization import legacy_modifier_quantization as legacy
from sparseml.pytorch.sparsification.quantization.modifier_quantization_base import (
    BaseQuantizationModifier,
    dict_or_empty,
)
from sparseml.utils.text import did_you_mean, quoted_list

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


def _list(name: str, value: Any) -> list[Any]:
    return list_or_none()(name, value) or []


@PyTorchModifierYAML(swap_class_by_state_fn=_class_for)
@declared_fields()
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
    :param model_fuse_fn_name: how layers are fused before
    :param model_fuse_fn_kwargs: arguments of the function that fuses
    :param num_calibration_steps: batches to calibrate with after training; None for all
    :param strict: demand that everything named exists
    """

    start_epoch: float = -1.0
    scheme: str | dict[str, Any] | None = field(_checked_scheme, default=None)
    scheme_overrides: dict[str, Any] | None = field(dict_or_empty, default=None)
    ignore: Iterable[str] | None = field(_list, default=None)
    disable_quantization_observer_epoch: float | None = None
    freeze_bn_stats_epoch: float | None = None
    model_fuse_fn_name: str | None = field(as_given, default=None)
    model_fuse_fn_kwargs: dict[str, Any] | None = field(dict_or_empty, default=None)
    num_calibration_steps: int | None = field(as_given, default=None)
    strict: bool = field(as_flag, default=True)
    end_epoch: float = -1.0
