"""Sparse training that moves connections to where they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.nn import Module

from sparseml.lazy import lazy_names
from sparseml.pytorch.functional.layer_densities import DENSITY_RULES, density_counts
from sparseml.pytorch.functional.schedules import CURVES, cosine_fraction
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    between,
    declared_fields,
    field,
    ignored,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import ModifierProp, PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.masks.optimizer_state import mask_moments
from sparseml.pytorch.sparsification.pruning.methods.elementwise import DropAndGrow
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    as_count,
    as_inner_fraction,
    as_keywords,
    supported,
)
from sparseml.pytorch.utils.layer_kinds import to_out_in
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.utils.text import few

# what was defined here in SparseML 1.x
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "sparseml.legacy.pruning.scorer": "RigLPruningParamsScorer",
    },
)


@PyTorchModifierYAML()
@declared_fields()
class RigLPruningModifier(BasePruningModifier):
    """Sparse from the start; drops small weights and grows others: Evci et al., "RigL" (2020).

    Needs ``grad_sampler``, whose builder is called with ``grad_sampler_kwargs`` as keyword
    arguments. Gradients are sampled in eval mode and leave no trace in the training.

    | Sample yaml:
    |   !RigLPruningModifier
    |       final_sparsity: 0.9
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    |       params: __ALL_PRUNABLE__
    |       num_grads: 8

    :param final_sparsity: of all weights together, from the start on; strictly inside (0, 1)
    :param num_grads: samples whose gradients decide what grows at an update
    :param global_sparsity: always False, as the shapes decide how sparse each parameter is
    :param momentum_buffer_reset: keep the optimizer's moments of weights that are zero at zero
    :param mask_type: must be ``unstructured``
    :param sparsity_strategy: ``uniform``, ``erdos_renyi`` or ``erdos_renyi_kernel``
    :param init_update_fraction: the share of connections that the first update moves
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    :param inter_func: accepted for the sake of old recipes; the sparsity never changes
    :raises ValueError: for a field out of range (and an AssertionError, for a choice not offered)
    """

    final_sparsity: float = field(as_inner_fraction)
    start_epoch: float
    end_epoch: float
    update_frequency: float
    params: str | Iterable[str]
    num_grads: int = field(as_count, default=1)
    leave_enabled: bool = True
    global_sparsity: bool = ignored(default=False)
    momentum_buffer_reset: bool = field(as_flag, default=True)
    mask_type: str = field(supported("unstructured"), default="unstructured")
    sparsity_strategy: str = field(supported(*DENSITY_RULES), default="erdos_renyi_kernel")
    init_update_fraction: float = field(between(0.0, 1.0), default=0.3)
    grad_sampler_kwargs: Mapping[str, Any] | None = field(as_keywords, default=None)
    inter_func: str = field(one_of(CURVES), default="cubic")
    _order_dependence = "it drops and grows weights while they train"

    def _set_up(self) -> None:
        self._init_sparsity = self.final_sparsity
        self._shares: list[float] | None = None  # once the parameters are known

    @ModifierProp(serializable=False)
    def init_sparsity(self) -> float:
        """``final_sparsity``."""
        return self.final_sparsity

    @property
    def applied_sparsity(self) -> Any:
        """The sparsity of each parameter, None before the first update.

        With ``uniform`` it is ``final_sparsity``, as each has it but for rounding.
        """
        asked = super().applied_sparsity
        if self.sparsity_strategy != "uniform" or not isinstance(asked, list):
            return asked
        return [self.final_sparsity] * len(asked)

    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> list[float]:
        """Return the sparsity of each parameter; before they are known, that of all together."""
        return [self.final_sparsity] if self._shares is None else self._shares

    def sparsities_at(self, module: Module, epoch: float) -> list[float | None]:
        """Return the sparsity that each of :meth:`selects` has from the start on."""
        return list(self._densities(super()._create_named_layers_and_params(module)))

    def check_mask_update(self, module: Module, epoch: float, *args: Any, **kwargs: Any) -> None:
        """Update the masks when due; fewer and fewer connections move."""
        if isinstance(self._method, DropAndGrow):
            self._method.replaced = cosine_fraction(
                epoch, self._start_epoch, self._end_epoch, self.init_update_fraction
            )
        super().check_mask_update(module, epoch, *args, **kwargs)

    def optimizer_pre_step(self, module: Module, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Forget the moments of weights that are zero."""
        super().optimizer_pre_step(module, optimizer, *args, **kwargs)
        if self.momentum_buffer_reset and self.masks.enabled:
            mask_moments(optimizer, self.masks.params)

    def _create_named_layers_and_params(self, module: Module) -> list[NamedLayerParam]:
        selected = super()._create_named_layers_and_params(module)
        self._shares = self._densities(selected)
        return selected

    def _densities(self, selected: Sequence[NamedLayerParam]) -> list[float]:
        """The sparsity of each, so that all together have the one asked for, exactly.

        :raises ValueError: naming parameters that are no matrices or convolutions
        """
        rule = self.sparsity_strategy
        flat = [found.name for found in selected if found.param.ndim < 2]
        if flat:
            raise ValueError(
                f"{rule} goes by the shapes of matrices and convolutions; leave out {few(flat)}"
            )
        shapes = [to_out_in(one.layer, one.param_name, one.param).shape for one in selected]
        counts = density_counts(shapes, self.final_sparsity, rule)
        return [
            count / max(found.param.numel(), 1)
            for count, found in zip(counts, selected, strict=True)
        ]

    def _get_method(self) -> DropAndGrow:
        return DropAndGrow(self.num_grads)
