"""The masks of a set of parameters, as SparseML 1.x makes them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from sparseml.legacy.pruning.mask_creator_base import PruningMaskCreator, Target
from sparseml.legacy.pruning.scorer import PruningParamsScorer
from sparseml.pytorch.functional.budgets import all_after_removal
from sparseml.pytorch.functional.selection import require_numbers
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet, broadcast_masks
from sparseml.pytorch.sparsification.pruning.masks.outcome import misfit
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import full_value, local_part
from sparseml.pytorch.utils.tensors.stats import mask_difference, tensor_list_sparsity

__all__ = ["ModuleParamPruningMask", "checked_scores", "named_params"]


class ModuleParamPruningMask(MaskSet):
    """Masks with a creator and a scorer, whose layers mask their weights at every forward pass.

    Masks are given and handed out as 1 and 0 in the parameters' dtype.

    :param layers: the layers that own the parameters, one per parameter
    :param scorer: scores the parameters; None takes their values as scores
    :param param_names: the parameter's name in its layer, for all or one per layer
    :param store_init: keep the initial values in ``params_init``, for :meth:`reset`
    :param store_unmasked: remember the values that masks take away
    :param mask_gradients_only: leave the weights alone
    :param track_grad_mom: momentum in [0, 1) of a running mean of the gradients, kept in
        ``params_grad``; -1.0 for none
    :param layer_names: for messages and :attr:`names`; by default the positions
    :param global_sparsity: rank the weights of all parameters together
    :param allow_reintroduction: leave gradients dense and put the remembered values back before
        each optimizer step, so that masked weights go on training
    :param forward_hooks: whether forward passes mask the weights
    :raises RuntimeError: for a layer without the parameter
    """

    def __init__(
        self,
        layers: Sequence[Module],
        mask_creator: PruningMaskCreator,
        scorer: PruningParamsScorer | None,
        param_names: str | Sequence[str] = "weight",
        store_init: bool = False,
        store_unmasked: bool = False,
        mask_gradients_only: bool = False,
        track_grad_mom: float = -1.0,
        layer_names: Sequence[str] | None = None,
        global_sparsity: bool = False,
        allow_reintroduction: bool = False,
        *,
        forward_hooks: bool = True,
    ) -> None:
        found = named_params(layers, param_names, layer_names)
        super().__init__(found, None, allow_reintroduction, gradients_only=mask_gradients_only)
        self.params_init = [one.param.detach().clone() if store_init else None for one in found]
        self._set_old_form(mask_creator, scorer, global_sparsity)
        self.store_init = store_init
        self._store_unmasked = store_unmasked or allow_reintroduction
        self.track_grad_mom = track_grad_mom
        self._forward_hooks = forward_hooks

    @classmethod
    def of(cls, masks: MaskSet, creator: Any, scorer: Any, global_sparsity: bool) -> Any:
        """Return a view of other masks: both have one state."""
        view = cls.__new__(cls)
        view.__dict__ = vars(masks)
        view._set_old_form(creator, scorer, global_sparsity)
        return view

    def _set_old_form(self, creator: Any, scorer: Any, global_sparsity: bool) -> None:
        self.mask_creator = self._mask_creator = creator
        self.scorer = self._scorer = scorer
        self.global_sparsity = global_sparsity
        self._layer_handles: list[RemovableHandle] = []
        self.store_init, self.track_grad_mom = False, -1.0
        self.params_grad: list[Tensor | None] = [None] * len(self)
        self._forward_hooks = False
        vars(self).setdefault("params_init", [None] * len(self))

    @property
    def store_unmasked(self) -> bool:
        """Whether values that masks take away are remembered."""
        return self._store_unmasked or self.allow_reintroduction

    @property
    def params_data(self) -> list[Tensor]:
        """The parameters' present values."""
        return [param.data for param in self.params]

    @property
    def params_unmasked(self) -> list[Any]:
        """The values as they would be without the masks, None each unless ``store_unmasked``."""
        return super().params_unmasked if self.store_unmasked else [None] * len(self)

    _params = property(attrgetter("params"))

    def set_param_data(self, value: Tensor, param_idx: int) -> None:
        """Copy new values into a parameter; a ValueError for None or another shape."""
        param = self.params[param_idx]
        if value is None or value.shape != param.shape:
            raise misfit(self.full_names[param_idx], param, value)
        param.data.copy_(value)
        self._taken[param_idx] = None
        if not self.allow_reintroduction:
            self.apply()

    def set_param_masks(self, masks: Sequence[Tensor]) -> list[Tensor]:
        """Set new masks, tell the scorer, and apply them; a ValueError for another shape.

        :return: per mask 1 where newly kept, -1 where newly pruned, 0 elsewhere
        """
        before = self.param_masks
        self._replace(masks)
        diffs = list(map(mask_difference, before, self.param_masks))
        if self._scorer is not None:
            self._scorer.mask_update(self.param_masks, diffs)
        self.apply(plain_zeros=True)
        return diffs

    def update_param_masks(
        self, target: Target, adjust_target_sparsity_for_thinning: bool = True
    ) -> list[Tensor]:
        """Score the parameters, make masks for a target sparsity, set and apply them.

        In a distributed run all ranks take the masks of rank 0.

        :param target: sparsity for all parameters or one for each
        :param adjust_target_sparsity_for_thinning: count weights that were removed since the start
            as pruned, so that fewer of the remaining ones are
        :return: as :meth:`set_param_masks`
        :raises ValueError: naming the parameter, for scores that are not numbers
        """
        if self._scorer is not None:
            self._scorer.check_regen_param_vals()
        self.restore_unmasked()
        scores = checked_scores(self, self._scorer)
        if adjust_target_sparsity_for_thinning and target is not None:
            sizes = [param.numel() for param in self.params]
            asked = target if isinstance(target, float) else list(target)
            target = all_after_removal(asked, sizes, self.original_sizes)
        create = self._mask_creator.create_parameter_masks
        masks = broadcast_masks(create(scores, target, self.global_sparsity))
        if self._scorer is not None:
            self._scorer.update_last_applied_sparsity(tensor_list_sparsity(masks))
        return self.set_param_masks(masks)

    def apply(  # type: ignore[override]
        self, param_idx: int | None = None, plain_zeros: bool = False
    ) -> None:
        """Mask the weights, if enabled; at any index those of all parameters."""
        super().apply(plain_zeros)

    def restore_param_masks(self, masks: Sequence[Tensor]) -> None:
        """Do what :meth:`restore` does."""
        self.restore(masks)

    def pre_optim_step_update(self) -> None:
        """Let the scorer see the gradients."""
        if self._scorer is not None:
            self._scorer.pre_optim_step_update(self.param_masks)

    def pruning_end(self, leave_enabled: bool) -> None:
        """Finish: mask the weights for good, and keep the masks in force if ``leave_enabled``."""
        self.end(leave_enabled)
        if self._scorer is not None:
            self._scorer.on_pruning_end()

    def reset(self) -> None:
        """Put the initial values back; a RuntimeError unless ``store_init``."""
        if not self.store_init:
            raise RuntimeError("initial values were not kept; construct with store_init=True")
        for index, initial in enumerate(self.params_init):
            if initial is not None:
                self.set_param_data(initial, index)

    def progress_state(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the masks, scorer and mean gradients included."""
        return {
            **super().progress_state(),
            "grad_means": list(self.params_grad),
            "scorer": {} if self._scorer is None else self._scorer.progress_state(),
        }

    def load_progress_state(self, state: Any) -> None:
        """Restore :meth:`progress_state`."""
        self.params_grad = list(state["grad_means"])
        if self._scorer is not None:
            self._scorer.load_progress_state(state["scorer"])
        super().load_progress_state(state)

    def _follow(self) -> None:
        super()._follow()
        if self._forward_hooks and not self._layer_handles:
            for layer in self.layers:
                self._layer_handles.append(layer.register_forward_pre_hook(self._before_forward))

    def _unhook(self) -> None:
        super()._unhook()
        while self._layer_handles:
            self._layer_handles.pop().remove()

    def _before_forward(self, _layer: Module, _inputs: Any) -> None:
        self.apply()

    def _gradient_ready(self, index: int, param: Tensor) -> None:
        super()._gradient_ready(index, param)
        # without forward hooks further passes may add to the gradient before the owner's step
        if self.allow_reintroduction and self._forward_hooks:
            self._put_back(index, param)
        if param.grad is not None and self.track_grad_mom >= 0.0:
            mean, share = self.params_grad[index], 1.0 - self.track_grad_mom
            mean = torch.zeros_like(param.grad) if mean is None else mean
            self.params_grad[index] = self.track_grad_mom * mean + share * param.grad.detach()


def named_params(
    layers: Sequence[Module],
    param_names: str | Sequence[str] = "weight",
    layer_names: Sequence[str] | None = None,
) -> list[NamedLayerParam]:
    """Return the parameters of layers; for names see :class:`ModuleParamPruningMask`.

    :raises RuntimeError: for a layer without the parameter
    :raises ValueError: for lists of different lengths
    """
    names = [param_names] * len(layers) if isinstance(param_names, str) else list(param_names)
    owners = list(map(str, range(len(layers)))) if layer_names is None else list(layer_names)
    for what, given in (("param_names", names), ("layer_names", owners)):
        if len(given) != len(layers):
            needed = f"one name for each of {len(layers)} layers"
            raise ValueError(f"{what} must hold {needed}, found {given}")
    found = []
    for owner, layer, name in zip(owners, layers, names, strict=True):
        param = getattr(layer, name, None)
        one = NamedLayerParam(owner, layer, name, param)  # type: ignore[arg-type]
        if not isinstance(param, Tensor):
            kind = type(layer).__name__
            raise RuntimeError(f"{kind} has no parameter {name!r}, wanted for {one.name!r}")
        found.append(one)
    return found


def checked_scores(masks: MaskSet, scorer: Any) -> list[Tensor]:
    """Return a scorer's scores, or for None the values, whole; a ValueError for a NaN in them."""
    params = masks.params
    if scorer is None:
        scores: list[Tensor] = [param.detach() for param in params]
    else:
        scorer.set_params(params)
        scores = scorer.score_parameters()
    scores = [full_value(score) for score in scores]
    for score, param, name in zip(scores, params, masks.full_names, strict=True):
        if bool(score.isnan().any()):
            what = "weights" if bool(local_part(param).isnan().any()) else "scores"
            require_numbers(score, f"{what} of {name}")
    return scores
