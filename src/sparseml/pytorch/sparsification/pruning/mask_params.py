"""The masks of a set of parameters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.budgets import all_after_removal
from sparseml.pytorch.functional.masks import apply_masks
from sparseml.pytorch.functional.selection import require_numbers
from sparseml.pytorch.sparsification.pruning.distributed import broadcast_masks
from sparseml.pytorch.sparsification.pruning.mask_creator_base import (
    Budget,
    PruningMaskCreator,
    Target,
)
from sparseml.pytorch.sparsification.pruning.mask_hooks import MaskHooks
from sparseml.pytorch.sparsification.pruning.masked_values import MaskedValues, RunningMeans
from sparseml.pytorch.sparsification.pruning.param_set import ParamSet
from sparseml.pytorch.sparsification.pruning.scorer import PruningParamsScorer
from sparseml.pytorch.utils.tensors.sharded import full_value, local_part, shard_like
from sparseml.pytorch.utils.tensors.stats import mask_difference, tensor_list_sparsity

__all__ = ["ModuleParamPruningMask"]


class ModuleParamPruningMask(ParamSet):
    """Masks that live beside the parameters they belong to.

    Masks start as ones and do nothing before :attr:`enabled` is set. From then on gradients are
    masked when they are complete, and :meth:`apply` masks the weights: before every forward pass
    of their layers by a hook, or, with ``forward_hooks=False``, whenever the owner calls it (the
    pruning modifiers do so after each optimizer step, in one fused operation for all weights).

    Parameters are looked up through their layers each time, so models may be moved and converted;
    masks follow. The masks handed out are never changed in place.

    :param layers: the layers that own the parameters, one per parameter
    :param mask_creator: makes masks of scores
    :param scorer: scores the parameters; None takes their values as scores
    :param param_names: the parameter's name in its layer, for all or one per layer
    :param store_init: keep the initial values, for :meth:`reset`
    :param store_unmasked: remember the values that masks take away
    :param mask_gradients_only: leave the weights alone
    :param track_grad_mom: momentum in [0, 1) of a running mean of the gradients, kept in
        ``params_grad``; -1.0 for none
    :param layer_names: for messages and :attr:`names`; by default the positions
    :param global_sparsity: rank the weights of all parameters together
    :param allow_reintroduction: leave gradients dense and put the remembered values back before
        each optimizer step, so that masked weights go on training
    :param forward_hooks: whether forward passes mask the weights
    :param budget: how many weights go in each parameter, instead of the target alone
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
        budget: Budget | None = None,
    ) -> None:
        super().__init__(layers, param_names, layer_names)
        self._mask_creator = mask_creator
        self._scorer = scorer
        self._store_init = store_init
        self._store_unmasked = store_unmasked or allow_reintroduction
        self._mask_gradients_only = mask_gradients_only
        self._global_sparsity = global_sparsity
        self._allow_reintroduction = allow_reintroduction
        self._budget = budget
        self._enabled = False
        params = self._params
        self._param_masks = [torch.ones_like(param).detach() for param in params]
        self._original_sizes = [param.numel() for param in params]
        self._params_init = [param.detach().clone() if store_init else None for param in params]
        self._masked_values = MaskedValues(len(params))
        self._grad_means = RunningMeans(len(params), track_grad_mom)
        self._forward_hooks = forward_hooks
        self._hooks = MaskHooks(self, forward=forward_hooks)

    def __deepcopy__(self, memo: dict[int, Any]) -> ModuleParamPruningMask:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        for name, value in vars(self).items():
            setattr(copied, name, copy.deepcopy(value, memo))
        if copied._enabled and copied._complete:
            copied._hooks.follow_params(range(len(copied)))
        return copied

    @property
    def mask_creator(self) -> PruningMaskCreator:
        """What makes the masks."""
        return self._mask_creator

    @property
    def scorer(self) -> PruningParamsScorer | None:
        """What scores the parameters."""
        return self._scorer

    @property
    def store_init(self) -> bool:
        """Whether initial values are kept."""
        return self._store_init

    @property
    def store_unmasked(self) -> bool:
        """Whether values that masks take away are remembered."""
        return self._store_unmasked

    @property
    def track_grad_mom(self) -> float:
        """Momentum of the running mean of gradients, -1.0 for none."""
        return self._grad_means.momentum

    @property
    def global_sparsity(self) -> bool:
        """Whether the weights of all parameters are ranked together."""
        return self._global_sparsity

    @property
    def allow_reintroduction(self) -> bool:
        """Whether masked weights go on training."""
        return self._allow_reintroduction

    @property
    def params_data(self) -> list[Tensor]:
        """The parameters' present values."""
        return [param.data for param in self._params]

    @property
    def param_masks(self) -> list[Tensor]:
        """The masks, each with shape, dtype and device of its parameter."""
        for index, param in enumerate(self._params):
            self._fit_to(index, param)
        return list(self._param_masks)

    @property
    def params_init(self) -> list[Tensor | None]:
        """The initial values, None each unless ``store_init``."""
        return list(self._params_init)

    @property
    def params_unmasked(self) -> list[Tensor | None]:
        """The values as they would be without the masks, None each unless ``store_unmasked``."""
        if not self._store_unmasked:
            return [None] * len(self)
        return list(self._masked_values.unmasked(self._params))

    @property
    def params_grad(self) -> list[Tensor | None]:
        """The running means of the gradients, None each before the first or without momentum."""
        return list(self._grad_means.means)

    @property
    def enabled(self) -> bool:
        """Whether the masks are in force."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if value and not self._enabled:
            self._hooks.register()
        elif not value and self._enabled:
            self._hooks.remove()
        self._enabled = bool(value)

    def set_param_data(self, value: Tensor, param_idx: int) -> None:
        """Copy new values into a parameter.

        :raises ValueError: for None or another shape
        """
        param = self._param(param_idx)
        self._require_shape(param_idx, value)
        param.data.copy_(value)
        self._masked_values.forget(param_idx)
        if not self._allow_reintroduction:
            self.apply(param_idx)

    def set_param_masks(self, masks: Sequence[Tensor]) -> list[Tensor]:
        """Set new masks, tell the scorer, and apply them.

        :return: per mask 1 where newly kept, -1 where newly pruned, 0 elsewhere
        :raises ValueError: for None or another shape
        """
        old_masks = self.param_masks
        self._replace_masks(masks)
        diffs = [
            mask_difference(old, new) for old, new in zip(old_masks, self._param_masks, strict=True)
        ]
        if self._scorer is not None:
            self._scorer.mask_update(list(self._param_masks), diffs)
        self.apply(plain_zeros=True)
        return diffs

    def restore_param_masks(self, masks: Sequence[Tensor]) -> None:
        """Set masks from a checkpoint and mask the weights, whether enabled or not."""
        self._replace_masks(masks)
        if not self._mask_gradients_only:
            self._mask_weights(range(len(self)))

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
        scores = self._scores()
        if adjust_target_sparsity_for_thinning and target is not None:
            sizes = [param.numel() for param in self._params]
            target = all_after_removal(target, sizes, self._original_sizes)
        masks = broadcast_masks(
            self._mask_creator.create_parameter_masks(
                scores, target, self._global_sparsity, self._budget
            )
        )
        if self._scorer is not None:
            self._scorer.update_last_applied_sparsity(tensor_list_sparsity(masks))
        return self.set_param_masks(masks)

    def apply(self, param_idx: int | None = None, plain_zeros: bool = False) -> None:
        """Mask the weights of one parameter or of all, if enabled.

        :param plain_zeros: leave no -0.0; not needed at every step
        """
        indices = range(len(self)) if param_idx is None else [param_idx]
        if self._enabled and self._mask_gradients_only:
            self._hooks.follow_params(indices)
        elif self._enabled:
            self._mask_weights(indices, plain_zeros)

    def mask_gradients(self) -> None:
        """Mask the gradients that are there now, if enabled and not reintroducing weights."""
        if not self._enabled or self._allow_reintroduction:
            return
        pairs = [
            (local_part(param.grad), local_part(mask))
            for param, mask in zip(self._params, self.param_masks, strict=True)
            if param.grad is not None
        ]
        apply_masks([grad for grad, _ in pairs], [mask for _, mask in pairs])

    def grad_ready(self, param_idx: int, param: Tensor) -> None:
        """Called when a parameter's gradient is complete.

        With reintroduction and forward hooks the unmasked values come back here. Without forward
        hooks the owner calls :meth:`restore_unmasked` before the optimizer's step, as further
        passes may add to the gradient before that.
        """
        if self._allow_reintroduction:
            if self._forward_hooks:
                self.restore_unmasked(param_idx)
        elif param.grad is not None:
            self._fit_to(param_idx, param)
            local_part(param.grad).mul_(local_part(self._param_masks[param_idx]))
        if param.grad is not None:
            self._grad_means.add(param_idx, param.grad)

    def restore_unmasked(self, param_idx: int | None = None) -> None:
        """With reintroduction, put the values that the masks took away back into the weights."""
        if not self._allow_reintroduction:
            return
        for index in range(len(self)) if param_idx is None else [param_idx]:
            self._masked_values.put_back(index, self._param(index))

    def pre_optim_step_update(self) -> None:
        """Let the scorer see the gradients."""
        if self._scorer is not None:
            self._scorer.pre_optim_step_update(self.param_masks)

    def pruning_end(self, leave_enabled: bool) -> None:
        """Finish: mask the weights for good, and keep the masks in force if ``leave_enabled``."""
        self.apply(plain_zeros=True)
        if not leave_enabled:
            self.enabled = False
        self.disable_reintroduction()
        if self._scorer is not None:
            self._scorer.on_pruning_end()

    def disable_reintroduction(self) -> None:
        """Let masked weights stay zero from now on."""
        self.apply()
        self._allow_reintroduction = False
        self._masked_values = MaskedValues(len(self))

    def reset(self) -> None:
        """Put the initial values back.

        :raises RuntimeError: unless ``store_init``
        """
        if not self._store_init:
            raise RuntimeError("initial values were not kept; construct with store_init=True")
        for index, initial in enumerate(self._params_init):
            if initial is not None:
                self.set_param_data(initial, index)

    def progress_state(self) -> dict[str, Any]:
        """What a resumed run needs beside the masks themselves, as plain data and tensors."""
        return {
            "enabled": self._enabled,
            "allow_reintroduction": self._allow_reintroduction,
            "masked_values": self._masked_values.progress_state(),
            "grad_means": self._grad_means.progress_state(),
            "original_sizes": list(self._original_sizes),
            "scorer": {} if self._scorer is None else self._scorer.progress_state(),
        }

    def load_progress_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`progress_state`."""
        self._allow_reintroduction = state["allow_reintroduction"]
        self._masked_values.load_progress_state(state["masked_values"])
        self._grad_means.load_progress_state(state["grad_means"])
        self._original_sizes = list(state["original_sizes"])
        if self._scorer is not None:
            self._scorer.load_progress_state(state["scorer"])
        self.enabled = state["enabled"]

    def _replace_masks(self, masks: Sequence[Tensor]) -> None:
        if len(masks) != len(self):
            raise ValueError(f"{len(self)} masks are needed, found {len(masks)}")
        params = self._params
        for index, mask in enumerate(masks):
            self._require_shape(index, mask)
        self.restore_unmasked()
        self._param_masks = [
            shard_like(mask.detach().to(param.device, param.dtype, copy=True), param)
            for mask, param in zip(masks, params, strict=True)
        ]
        for index, param in enumerate(params):
            self._masked_values.follow_mask(index, param, self._param_masks[index])

    def _mask_weights(self, indices: Sequence[int], plain_zeros: bool = False) -> None:
        if self._enabled:
            self._hooks.follow_params(indices)
        params = [self._param(index) for index in indices]
        for index, param in zip(indices, params, strict=True):
            self._fit_to(index, param)
            if self._store_unmasked:
                self._masked_values.remember(index, param, self._param_masks[index])
        masks = [local_part(self._param_masks[index]) for index in indices]
        apply_masks([local_part(param) for param in params], masks, plain_zeros)

    def _fit_to(self, index: int, param: Tensor) -> None:
        mask = self._param_masks[index]
        if mask.shape != param.shape:  # the layer was made smaller
            self._param_masks[index] = torch.ones_like(param).detach()
            self._masked_values.forget(index)
        elif mask.device != param.device or mask.dtype != param.dtype:
            self._param_masks[index] = mask.to(param.device, param.dtype)

    def _scores(self) -> list[Tensor]:
        params = self._params
        if self._scorer is None:
            scores: list[Tensor] = [param.detach() for param in params]
        else:
            self._scorer.set_params(params)
            scores = self._scorer.score_parameters()
        scores = [full_value(score) for score in scores]
        for score, param, name in zip(scores, params, self.full_names, strict=True):
            if bool(score.isnan().any()):
                what = "weights" if bool(local_part(param).isnan().any()) else "scores"
                require_numbers(score, f"{what} of {name}")
        return scores
