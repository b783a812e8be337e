"""The quantization modifier with the fields of recipes from before quantization schemes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_given,
    declared_fields,
    field,
    list_or_none,
)
from sparseml.pytorch.sparsification.quantization.modifier_quantization_base import (
    BaseQuantizationModifier,
    dict_or_empty,
)


def _as_flag(name: str, value: Any) -> Any:
    """``value`` as SparseML 1.x shows it: 0 and 1 stay numbers."""
    return as_flag(name, value) if isinstance(value, str) else value


@declared_fields()
class QuantizationModifier(BaseQuantizationModifier):
    """Describes quantization-aware training layer kind by layer kind; does not perform it yet.

    Built for ``!QuantizationModifier`` when a recipe has one of the fields that only this form has.

    | Sample yaml:
    |   !QuantizationModifier
    |       start_epoch: 0.0
    |       submodules: ['blocks.0', 'blocks.2']
    |       disable_quantization_observer_epoch: 2.0
    |       freeze_bn_stats_epoch: 3.0
    |       reduce_range: False

    :param submodules: names of the layers to quantize; None for the whole module
    :param model_fuse_fn_name: how layers are fused before; by default ``conv_bn_relus``, with
        ``tensorrt`` ``no_fuse``
    :param disable_quantization_observer_epoch: when to stop updating scales and zero points
    :param freeze_bn_stats_epoch: when to freeze the statistics of batch norms
    :param end_epoch: must be -1
    :param model_fuse_fn_kwargs: arguments of the function that fuses layers
    :param quantize_embeddings: whether to quantize embeddings
    :param reduce_range: whether activations use one bit less
    :param quantize_linear_activations: whether to quantize what linear layers put out
    :param quantize_conv_activations: whether to quantize what convolutions put out
    :param quantize_embedding_activations: whether to quantize what embeddings put out
    :param activation_bits: bits of an activation
    :param weight_bits: bits of a weight
    :param num_calibration_steps: batches to calibrate with after training; None for all
    :param exclude_batchnorm: whether batch norms stay as they are
    :param exclude_module_types: classes left as they are
    :param custom_quantizable_module_types: further classes to quantize
    :param activation_qconfig_kwargs: arguments of the observers of activations
    :param weight_qconfig_kwargs: arguments of the observers of weights
    :param tensorrt: whether to quantize as TensorRT expects it, which leaves activations as they
        are
    """

    start_epoch: float = -1.0
    submodules: Iterable[str] | None = field(list_or_none(), default=None)
    model_fuse_fn_name: str | None = field(
        as_given, default=None, unset=lambda mod: "no_fuse" if mod.tensorrt else "conv_bn_relus"
    )
    disable_quantization_observer_epoch: float | None = None
    freeze_bn_stats_epoch: float | None = None
    end_epoch: float = -1.0
    model_fuse_fn_kwargs: dict[str, Any] | None = field(
        dict_or_empty, default=None, serializable=False
    )
    quantize_embeddings: bool = field(_as_flag, default=True)
    reduce_range: bool = field(_as_flag, default=False)
    quantize_linear_activations: bool = field(_as_flag, default=True)
    quantize_conv_activations: bool = field(_as_flag, default=True)
    quantize_embedding_activations: bool = field(_as_flag, default=True)
    activation_bits: int = field(as_given, default=8)
    weight_bits: int = field(as_given, default=8)
    num_calibration_steps: int | None = field(as_given, default=None)
    exclude_batchnorm: bool = field(_as_flag, default=True)
    exclude_module_types: Iterable[str] | None = field(list_or_none(), default=None)
    custom_quantizable_module_types: Iterable[Any] | None = field(list_or_none(), default=None)
    activation_qconfig_kwargs: dict[str, Any] | None = field(as_given, default=None)
    weight_qconfig_kwargs: dict[str, Any] | None = field(as_given, default=None)
    tensorrt: bool = field(_as_flag, default=False)

    _shows_start_as_given = True

    def _set_up(self) -> None:
        if self.tensorrt:
            self.quantize_embedding_activations = False
            self.quantize_linear_activations = False
            self.quantize_conv_activations = False
