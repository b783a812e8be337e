"""Training that is sparse all the time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.scores import exploration_decay
from sparseml.pytorch.sparsification.fields import (
    as_given,
    as_number,
    between,
    declared_fields,
    field,
    fixed,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.methods.method import Problem
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    MaskType,
    as_inner_fraction,
)
from sparseml.pytorch.sparsification.pruning.settings.limits import require_sensible_limits
from sparseml.pytorch.utils.optimizers import get_optim_learning_rate
from sparseml.utils.text import few

_LOGGER = logging.getLogger(__name__)


class ExplorationMasks(MaskSet):
    """Leaves the gradients of more weights alone than are active, so that the others explore.

    :param active: the masks of the weights, which allow reintroduction
    :param forward_sparsity: of ``active``, below 1
    :param backward_sparsity: of these masks
    """

    def __init__(self, active: MaskSet, forward_sparsity: float, backward_sparsity: float) -> None:
        if backward_sparsity > forward_sparsity:
            text = "backward_sparsity %g is above forward_sparsity %g: some active weights do not "
            text += "train, and no others do"
            _LOGGER.warning(text, backward_sparsity, forward_sparsity)
        super().__init__(active.found, gradients_only=True)
        self._active = active
        self._density = 1.0 - forward_sparsity

    def decay(self, rate: float) -> None:
        """Shrink the weights, masked ones put back, by a rate: decay times learning rate."""
        if not (self._active.enabled and self._active.allow_reintroduction):
            return
        masks = zip(self._active.param_masks, self.param_masks, strict=True)
        for param, (active, trained) in zip(self.params, masks, strict=True):
            new = exploration_decay(param.data, active, trained, rate, self._density)
            param.data.copy_(new)


@PyTorchModifierYAML()
@declared_fields()
class TopKASTPruningModifier(BasePruningModifier):
    """Uses the largest weights, updates some more: Jayakumar et al., "Top-KAST" (2021).

    Masked weights keep their values out of sight; some go on training and may become active again.

    | Sample yaml:
    |   !TopKASTPruningModifier
    |       forward_sparsity: 0.9
    |       backward_sparsity: 0.7
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    |       params: __ALL_PRUNABLE__

    :param forward_sparsity: of the weights that the model computes with, strictly inside (0, 1)
    :param backward_sparsity: of the weights that are updated, in [0, 1]; at most the other one
    :param global_sparsity: rank all weights together; at initialisation that may mask whole layers
    :param mask_type: what is masked together, as in other pruning modifiers
    :param active_weight_decay: strength of the decay that makes weights compete
    """

    forward_sparsity: float = field(as_inner_fraction)
    backward_sparsity: float = field(between(0.0, 1.0))
    start_epoch: float
    end_epoch: float
    update_frequency: float
    params: str | Iterable[str]
    global_sparsity: bool = True
    leave_enabled: bool = True
    mask_type: MaskType = field(as_given, default="unstructured")
    active_weight_decay: float = field(as_number, default=0.0001)
    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None
    allow_reintroduction: bool = fixed(True)
    _progress: ClassVar[tuple[str, ...]] = ("_grad_module_masks",)
    _order_dependence = "it trains weights that are masked, and decides anew at each update"

    def _set_up(self) -> None:
        self._grad_module_masks: ExplorationMasks | None = None
        require_sensible_limits(self, "forward_sparsity")

    def _goal(self) -> float:
        return self.forward_sparsity

    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> float:
        """Return ``forward_sparsity``."""
        return self.forward_sparsity

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Update both masks; forget the momentum of weights that come to or leave training."""
        before = self._exploring.masks
        super().update(module, optimizer, epoch, steps_per_epoch)
        self._exploring.forget_changed(optimizer, before)

    def optimizer_pre_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Put masked values back, and let the weights decay."""
        super().optimizer_pre_step(module, optimizer, epoch, steps_per_epoch)
        lr = get_optim_learning_rate(optimizer)
        self._exploring.decay(rate=lr * self.active_weight_decay)

    def state_dict(self) -> dict[str, Any]:
        """Return both masks: ``param_masks`` and ``grad_masks``, by name each."""
        masks = self._grad_module_masks
        grad_masks = {} if masks is None else masks.named_state(self._ended)
        return {"param_masks": super().state_dict(), "grad_masks": grad_masks}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Restore both masks, and mask the weights at once."""
        self._require_initialized("load_state_dict")
        if strict and set(state_dict) != {"param_masks", "grad_masks"}:
            raise IndexError(
                f"needs 'param_masks' and 'grad_masks', found {few(sorted(state_dict))}"
            )
        super().load_state_dict(state_dict.get("param_masks", {}), strict)
        grad_masks = state_dict.get("grad_masks", {})
        self._exploring.load_named_state(grad_masks, strict, type(self).__name__)

    @property
    def _exploring(self) -> ExplorationMasks:
        if self._grad_module_masks is None:
            self._grad_module_masks = ExplorationMasks(
                self.masks, self.forward_sparsity, self.backward_sparsity
            )
        return self._grad_module_masks

    def _before_mask_update(self, module: Module, target: Any) -> None:
        self.masks.restore_unmasked()
        exploring = self._exploring
        exploring.enabled = True
        problem = Problem(module, exploring, self._pattern, self._budget)
        exploring.take(self.method.decide(problem, [self.backward_sparsity])[0])

    def initialize_extras(self, module: Module) -> None:
        """Make the masks of the gradients."""
        super().initialize_extras(module)
        self._grad_module_masks = None
        self._grad_module_masks = self._exploring

    def _end_pruning(self) -> None:
        super()._end_pruning()
        self._exploring.end(self._leave_enabled)

    def _release_masks(self) -> None:
        super()._release_masks()
        if self._grad_module_masks is not None:
            self._grad_module_masks.enabled = False
        self._grad_module_masks = None
