"""The quantization modifier with the fields of recipes from before quantization schemes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparseml.pytorch.sparsification.fields import as_flag, as_given, field
from sparseml.pytorch.sparsification.modifier import ModifierProp
from sparseml.pytorch.sparsification.quantization.modifier_quantization_base import (
    BaseQuantizationModifier,
    copied_list,
)

__all__ = ["QuantizationModifier"]


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
    :param num_calibration_steps: batches to calibrate with after training; None for all
    """

    def __init__(
        self,
        start_epoch: float = -1.0,
        submodules: Iterable[str] | None = None,
        model_fuse_fn_name: str | None = None,
        disable_quantization_observer_epoch: float | None = None,
        freeze_bn_stats_epoch: float | None = None,
        end_epoch: float = -1.0,
        model_fuse_fn_kwargs: dict[str, Any] | None = None,
        quantize_embeddings: bool = True,
        reduce_range: bool = False,
        quantize_linear_activations: bool = True,
        quantize_conv_activations: bool = True,
        quantize_embedding_activations: bool = True,
        activation_bits: int = 8,
        weight_bits: int = 8,
        num_calibration_steps: int | None = None,
        exclude_batchnorm: bool = True,
        exclude_module_types: Iterable[str] | None = None,
        custom_quantizable_module_types: Iterable[Any] | None = None,
        activation_qconfig_kwargs: dict[str, Any] | None = None,
        weight_qconfig_kwargs: dict[str, Any] | None = None,
        tensorrt: bool = False,
    ) -> None:
        super().__init__(
            start_epoch, end_epoch, disable_quantization_observer_epoch, freeze_bn_stats_epoch
        )
        self.submodules = submodules
        self._model_fuse_fn_name = model_fuse_fn_name
        self._model_fuse_fn_kwargs = dict(model_fuse_fn_kwargs or {})
        self.quantize_embeddings = quantize_embeddings
        self.reduce_range = reduce_range
        self.quantize_linear_activations = quantize_linear_activations
        self.quantize_conv_activations = quantize_conv_activations
        self.quantize_embedding_activations = quantize_embedding_activations
        self.activation_bits = activation_bits
        self.weight_bits = weight_bits
        self.num_calibration_steps = num_calibration_steps
        self.exclude_batchnorm = exclude_batchnorm
        self.exclude_module_types = exclude_module_types
        self.custom_quantizable_module_types = custom_quantizable_module_types
        self.activation_qconfig_kwargs = activation_qconfig_kwargs
        self.weight_qconfig_kwargs = weight_qconfig_kwargs
        self.tensorrt = tensorrt

    submodules = field(copied_list)
    quantize_embeddings = field(as_flag, doc="Whether to quantize embeddings.")
    reduce_range = field(as_flag, doc="Whether activations use one bit less.")
    quantize_linear_activations = field(
        as_flag, doc="Whether to quantize what linear layers put out."
    )
    quantize_conv_activations = field(as_flag, doc="Whether to quantize what convolutions put out.")
    quantize_embedding_activations = field(
        as_flag, doc="Whether to quantize what embeddings put out."
    )
    activation_bits = field(as_given, doc="Bits of an activation.")
    weight_bits = field(as_given, doc="Bits of a weight.")
    num_calibration_steps = field(as_given)
    exclude_batchnorm = field(as_flag, doc="Whether batch norms stay as they are.")
    exclude_module_types = field(copied_list, doc="Classes left as they are.")
    custom_quantizable_module_types = field(copied_list, doc="Further classes to quantize.")
    activation_qconfig_kwargs = field(as_given, doc="Arguments of the observers of activations.")
    weight_qconfig_kwargs = field(as_given, doc="Arguments of the observers of weights.")
    tensorrt = field(as_flag, doc="Whether to quantize as TensorRT expects it.")

    @ModifierProp()
    def model_fuse_fn_name(self) -> str:
        """How layers are fused before they are quantized."""
        return self._model_fuse_fn_name or ("no_fuse" if self.tensorrt else "conv_bn_relus")

    @model_fuse_fn_name.setter  # type: ignore[no-redef]
    def model_fuse_fn_name(self, value: str | None) -> None:
        self._model_fuse_fn_name = value

    @property
    def model_fuse_fn_kwargs(self) -> dict[str, Any]:
        """Arguments of the function that fuses layers."""
        return self._model_fuse_fn_kwargs
