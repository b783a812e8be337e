"""Gradual pruning by M-FAC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from sparseml.pytorch.sparsification.fields import field, one_of
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.fields import as_count
from sparseml.pytorch.sparsification.pruning.fisher_fields import as_optional_count, damp_field
from sparseml.pytorch.sparsification.pruning.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.mask_creator import MaskType
from sparseml.pytorch.sparsification.pruning.modifier_pruning_sampled import (
    SampledPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.scorer_mfac import (
    MFACPruningParamsScorer,
    MFACSettings,
)
from sparseml.utils.iterables import convert_to_bool

__all__ = ["MFACPruningModifier"]


def _as_counts(name: str, value: Any) -> int | dict[float, int]:
    if not isinstance(value, Mapping):
        return as_count(name, value)
    counts = {float(sparsity): as_count(name, count) for sparsity, count in value.items()}
    if 0.0 not in counts:
        raise ValueError(
            f"{name} must say how many gradients to take from a sparsity of 0.0 on, found {value!r}"
        )
    return counts


def _as_devices(name: str, value: Any) -> list[str]:
    if value is None:
        return ["cuda:0" if torch.cuda.is_available() else "cpu"]
    return [value] if isinstance(value, str) else [str(device) for device in value]


@PyTorchModifierYAML()
class MFACPruningModifier(SampledPruningModifier):
    """Prunes what costs least by gradients alone: Frantar et al., "M-FAC" (2021).

    | Sample yaml:
    |   !MFACPruningModifier
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    |       params: __ALL_PRUNABLE__
    |       num_grads: {0.0: 64, 0.5: 128, 0.75: 256}
    |       fisher_block_size: 2000

    :param params: names, ``re:`` patterns, ``__ALL__`` or ``__ALL_PRUNABLE__``
    :param init_sparsity: sparsity at the start, or ``__FROM_PARAM__``
    :param final_sparsity: sparsity at the end, or several with the parameters they are for
    :param update_frequency: epochs between updates, -1 for every step
    :param leave_enabled: keep the masks in force after the end
    :param inter_func: ``linear``, ``cubic`` or ``inverse_cubic``
    :param global_sparsity: rank the weights of all parameters together
    :param use_gradient_buffering: True to take the gradients of the training, False to need a
        ``grad_sampler``, None to take the sampler if there is one
    :param num_grads: how many gradients to take, or a mapping of sparsities to counts: that of the
        smallest sparsity not below the present one holds
    :param damp: dampening, absolute
    :param grads_device: where gradients are kept, ``num_grads`` values per weight
    :param fisher_block_size: weights per block; None for one block of all
    :param num_pages: in how many pieces gradients are brought to the device, without blocks
    :param available_devices: where to compute; None for the first GPU, or else the CPU
    :param mask_type: as of :class:`GMPruningModifier`
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    :param block_implementation: ``auto``, ``block`` or ``small_block``; all give the same
    :raises ValueError: for a field out of its range
    """

    _damp: float
    _grads_device: str
    _fisher_block_size: int | None
    _num_pages: int
    _available_devices: list[str]

    def __init__(
        self,
        params: str | Iterable[str],
        init_sparsity: float | str,
        final_sparsity: float | Mapping[float, Sequence[str]],
        start_epoch: float,
        end_epoch: float,
        update_frequency: float,
        leave_enabled: bool = True,
        inter_func: str = "cubic",
        global_sparsity: bool = False,
        use_gradient_buffering: bool | None = None,
        num_grads: int | Mapping[float, int] = 64,
        damp: float = 1e-5,
        grads_device: str = "cpu",
        fisher_block_size: int | None = 2000,
        num_pages: int = 1,
        available_devices: Sequence[str] | None = None,
        mask_type: MaskType = "unstructured",
        grad_sampler_kwargs: Mapping[str, Any] | None = None,
        block_implementation: str = "auto",
    ) -> None:
        super().__init__(
            params,
            init_sparsity,
            final_sparsity,
            start_epoch,
            end_epoch,
            update_frequency,
            leave_enabled=leave_enabled,
            inter_func=inter_func,
            global_sparsity=global_sparsity,
            mask_type=mask_type,
            num_grads=num_grads,
            grad_sampler_kwargs=grad_sampler_kwargs,
        )
        self.use_gradient_buffering = use_gradient_buffering
        self.damp = damp
        self.grads_device = grads_device
        self.fisher_block_size = fisher_block_size
        self.num_pages = num_pages
        self.available_devices = available_devices
        self.block_implementation = block_implementation

    use_gradient_buffering = field(
        "use_gradient_buffering",
        lambda _, value: None if value is None else convert_to_bool(value),
        "Whether gradients are those of the training.",
    )
    num_grads = field("num_grads", _as_counts, "Gradients for an update, or several by sparsity.")
    damp = damp_field()
    grads_device = field("grads_device", lambda _, value: str(value), "Where gradients are kept.")
    fisher_block_size = field("fisher_block_size", as_optional_count, "Weights per block.")
    num_pages = field("num_pages", as_count, "In how many pieces gradients are brought.")
    available_devices = field("available_devices", _as_devices, "Where to compute.")
    block_implementation = field(
        "block_implementation", one_of(("auto", "block", "small_block")), "The form of the inverse."
    )

    def _make_sampler(self, given: Any) -> GradientSampler | None:
        buffering = self.use_gradient_buffering
        if buffering or (buffering is None and given is None):
            return None
        return super()._make_sampler(given)

    def _get_scorer(self, params: list[Parameter]) -> MFACPruningParamsScorer:
        settings = MFACSettings(
            num_grads=self._num_grads,
            damp=self._damp,
            block_size=self._fisher_block_size,
            num_pages=self._num_pages,
            devices=self._available_devices,
            home=self._grads_device,
            implementation=self.block_implementation,
        )
        return MFACPruningParamsScorer(params, type(self).__name__, settings)
