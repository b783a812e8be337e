"""Gradual pruning by M-FAC."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sparseml.lazy import lazy_names
from sparseml.pytorch.sparsification.fields import (
    as_given,
    as_number,
    declared_fields,
    field,
    new_field,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.mfac import MFAC, MFACSettings
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.settings.effort import effort_field
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    MaskType,
    as_count,
    as_optional_fraction,
    as_optional_keywords,
)
from sparseml.pytorch.sparsification.pruning.settings.fisher_fields import (
    as_damp,
    as_gradients_of,
    as_optional_count,
    as_relative_damp,
    dampening,
)
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.utils.iterables import convert_to_bool

_LOGGER = logging.getLogger(__name__)

# what was defined here in SparseML 1.x
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "sparseml.legacy.pruning.scorer": "MFACPruningParamsScorer",
        "sparseml.pytorch.functional.second_order.mfac": (
            "FisherInverse FisherInverseFast FisherInverseFastBlock FisherInverseFastPageSwap "
            "FisherInverseFastSmallBlocks"
        ),
    },
)


def _as_counts(name: str, value: Any) -> int | dict[float, int]:
    if not isinstance(value, Mapping):
        return as_count(name, value)
    for sparsity, count in value.items():
        as_number(name, sparsity)
        as_count(name, count)
    if 0.0 not in value:
        raise ValueError(
            f"{name} must say how many gradients to take from a sparsity of 0.0 on, found {value!r}"
        )
    return dict(value)


def _counts(num_grads: int | Mapping[float, int]) -> int | dict[float, int]:
    if not isinstance(num_grads, Mapping):
        return num_grads
    return {float(sparsity): int(float(count)) for sparsity, count in num_grads.items()}


def _as_optional_flag(name: str, value: Any) -> bool | None:
    return None if value is None else convert_to_bool(value)


def _as_text(name: str, value: Any) -> str:
    return str(value)


def _as_devices(name: str, value: Any) -> list[str]:
    if value is None:
        return ["cuda:0" if torch.cuda.is_available() else "cpu"]
    return [value] if isinstance(value, str) else [str(device) for device in value]


@PyTorchModifierYAML()
@declared_fields(GradualFields)
class MFACPruningModifier(BaseGradualPruningModifier):
    """Prunes what costs least by gradients alone: Frantar et al., "M-FAC" (2021).

    | Sample yaml:
    |   !MFACPruningModifier
    |       params: __ALL_PRUNABLE__
    |       num_grads: {0.0: 64, 0.5: 128, 0.75: 256}
    |       fisher_block_size: 2000
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0

    :param use_gradient_buffering: True to take the gradients of the training, False to need a
        ``grad_sampler``, None to take the sampler if there is one
    :param num_grads: how many gradients to take, or a mapping of sparsities to counts: that of the
        smallest sparsity not below the present one holds
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    :param damp: dampening, absolute; or ``auto``, as of :class:`OBSPruningModifier`, which needs a
        ``grad_sampler``
    :param grads_device: where gradients are kept, ``num_grads`` values per weight
    :param fisher_block_size: weights per block; None for one block of all
    :param num_pages: in how many pieces gradients are brought to the device, without blocks
    :param available_devices: where to compute; None for the first GPU, or else the CPU
    :param block_implementation: ``auto``, ``block`` or ``small_block``; all give the same
    :param mask_type: as of :class:`GMPruningModifier`
    :param relative_damp: dampening relative to the mean squared gradient, in place of ``damp``
    :param layer_floor: as of :class:`OBSPruningModifier`
    :param gradients_of: as of :class:`OBSPruningModifier`; needs a ``grad_sampler``
    :param effort: ``fast``, ``balanced`` or ``best``: sets num_grads, gradients_of, damp and
        layer_floor, as of :class:`OBSPruningModifier`
    :raises ValueError: for a field out of its range
    """

    global_sparsity: bool = False
    use_gradient_buffering: bool | None = field(_as_optional_flag, default=None)
    num_grads: int | Mapping[float, int] = field(_as_counts, default=64)
    damp: float | str = field(as_damp, default=1e-5)
    grads_device: str = field(_as_text, default="cpu")
    fisher_block_size: int | None = field(as_optional_count, default=2000)
    num_pages: int = field(as_count, default=1)
    available_devices: Sequence[str] | None = field(_as_devices, default=None)
    mask_type: MaskType = field(as_given, default="unstructured")
    grad_sampler_kwargs: Mapping[str, Any] | None = field(as_optional_keywords, default=None)
    block_implementation: str = new_field(one_of(("auto", "block", "small_block")), default="auto")

    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None
    relative_damp: float | None = new_field(as_relative_damp, default=None)
    layer_floor: float | None = new_field(as_optional_fraction, default=None)
    gradients_of: str = new_field(as_gradients_of, default="loss")
    effort: str | None = effort_field()
    _order_dependence = ""

    def _get_sampler(self, given: Any) -> GradientSampler | None:
        buffering = self.use_gradient_buffering
        if buffering or (buffering is None and given is None):
            if self.gradients_of != "loss" and self.effort is None:
                text = "%s takes the gradients of the training, so gradients_of: %s has no effect"
                _LOGGER.warning(text, type(self).__name__, self.gradients_of)
            return None
        return super()._get_sampler(given)

    def needs(self) -> dict[str, str]:
        """Return the extras of :meth:`initialize` that are asked for → what happens without."""
        if self.use_gradient_buffering is False:
            return super().needs()
        if self.use_gradient_buffering:
            return {}
        return {"grad_sampler": "it takes the gradients of the training steps before each update"}

    def _get_method(self) -> MFAC:
        settings = MFACSettings(
            num_grads=_counts(self.num_grads),
            **dampening(self),
            block_size=self.fisher_block_size,
            num_pages=self.num_pages,
            devices=list(self.available_devices or ()),
            home=self.grads_device,
            implementation=self.block_implementation,
        )
        return MFAC(type(self).__name__, settings)

    def _prepare(self, selected: Sequence[NamedLayerParam]) -> None:
        super()._prepare(selected)
        assert isinstance(self._method, MFAC)
        self._method.buffers = self._sampler is None
