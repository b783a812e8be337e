"""Masks beside the parameters that they belong to."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from sparseml.pytorch.functional.masks import apply_masks
from sparseml.pytorch.sparsification.pruning.masks.agreement import broadcast_masks
from sparseml.pytorch.sparsification.pruning.masks.masked_values import MaskedValues
from sparseml.pytorch.sparsification.pruning.masks.optimizer_state import clear_optimizer_state
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.masks.param_set import ParamSet
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import full_value, is_sharded, local_part, shard_like

__all__ = ["MaskSet"]


class MaskSet(ParamSet, Mapping[str, Tensor]):
    """The mask (bool, True = keep) of each parameter, by the parameter's name.

    Masks start as all True and do nothing before :attr:`enabled` is set. From then on gradients are
    masked as soon as they are complete, so that gradient clipping and optimizers that step during
    the backward pass see masked gradients; weights are masked whenever :meth:`apply` is called (the
    pruning modifiers do so after each optimizer step, in one operation for all weights).

    Masks follow their parameters when a model is moved or converted; a parameter that was made
    smaller gets a new one. The tensors handed out are never changed in place.

    :param found: the parameters
    :param reintroduce: leave gradients dense, and let :meth:`restore_unmasked` put masked values
        back before each optimizer step, so that masked weights go on training
    :param gradients_only: leave the weights alone
    """

    def __init__(
        self,
        found: Sequence[NamedLayerParam],
        *,
        reintroduce: bool = False,
        gradients_only: bool = False,
    ) -> None:
        layers = [one.layer for one in found]
        super().__init__(layers, [o.param_name for o in found], [o.layer_name for o in found])
        self._reintroduce = reintroduce
        self._gradients_only = gradients_only
        self._start()

    def _start(self) -> None:
        self._enabled = False
        params = self.params
        self._bits = [_all_kept(param) for param in params]
        self._original_sizes = [param.numel() for param in params]
        self._values = MaskedValues(len(params))
        self._sharded = any(is_sharded(param) for param in params)
        self._hooked: list[Parameter | None] = [None] * len(params)
        self._handles: list[RemovableHandle | None] = [None] * len(params)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, name: str) -> Tensor:
        return self.masks[self.full_names.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.full_names)

    def __contains__(self, name: object) -> bool:
        return name in self.full_names

    def __deepcopy__(self, memo: dict[int, Any]) -> MaskSet:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        for name, value in vars(self).items():
            if name not in ("_hooked", "_handles"):
                setattr(copied, name, copy.deepcopy(value, memo))
        # hooks of parameters are not copied with them
        copied._hooked, copied._handles = [None] * len(self), [None] * len(self)
        if copied._enabled and copied.complete:
            copied._follow()
        return copied

    @property
    def masks(self) -> list[Tensor]:
        """All masks in the parameters' order; each has the shape and the device of its own."""
        self._fit()
        return list(self._bits)

    @property
    def param_masks(self) -> list[Tensor]:
        """The masks as SparseML 1.x had them: 1 = keep, 0 = prune, in each parameter's dtype."""
        return [mask.to(param.dtype) for mask, param in zip(self.masks, self.params, strict=True)]

    @property
    def original_sizes(self) -> list[int]:
        """How many weights each parameter had at first; fewer may be left after thinning."""
        return self._original_sizes

    @property
    def allow_reintroduction(self) -> bool:
        """Whether masked weights go on training."""
        return self._reintroduce

    @property
    def params_unmasked(self) -> list[Tensor]:
        """Copies of the parameters as they would be without the masks."""
        return self._values.unmasked(self.params)

    @property
    def enabled(self) -> bool:
        """Whether the masks are in force."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = bool(value)
        if value:
            self._follow()
        else:
            self._unhook()

    def take(self, outcome: Outcome, optimizer: Any = None) -> None:
        """Put an outcome in force: its new weights, and its masks on weights and gradients.

        In a distributed run all ranks take the masks of rank 0.

        :param outcome: of all the parameters; masks in their own layout and whole, also where
            parameters are sharded
        :param optimizer: forgets what it remembers of entries whose mask changes
        :raises ValueError: naming the parameter, for another shape
        """
        changes = [outcome[name] for name in self.full_names]
        before = self._bits
        self._replace(broadcast_masks([change.mask for change in changes]))
        with torch.no_grad():
            for param, change in zip(self.params, changes, strict=True):
                if change.weight is not None:
                    new = change.weight.to(param.device, param.dtype)
                    param.copy_(shard_like(new, param))
        self.apply(plain_zeros=True)
        if optimizer is not None:
            self.forget_changed(optimizer, before)

    def restore(self, masks: Sequence[Tensor]) -> None:
        """Set masks from a checkpoint, and mask the weights whether enabled or not.

        :raises ValueError: naming the parameter, for another shape
        """
        self._replace(masks)
        if not self._gradients_only:
            self._mask_weights(plain_zeros=False)

    def apply(self, plain_zeros: bool = False) -> None:
        """Mask the weights, if enabled.

        :param plain_zeros: leave no -0.0; not needed at every step
        """
        if not self._enabled:
            return
        self._follow()
        if not self._gradients_only:
            self._mask_weights(plain_zeros)

    def forget_changed(self, optimizer: Any, before: Sequence[Tensor]) -> None:
        """Clear what an optimizer remembers of entries whose mask has changed, and mask gradients.

        :param before: the masks as they were
        """
        if clear_optimizer_state(optimizer, self.params, before, self._bits):
            self.mask_gradients()

    def mask_gradients(self) -> None:
        """Mask the gradients that are there now, if enabled and not reintroducing weights."""
        if not self._enabled or self._reintroduce:
            return
        pairs = [
            (local_part(param.grad), local_part(mask))
            for param, mask in zip(self.params, self.masks, strict=True)
            if param.grad is not None
        ]
        apply_masks([grad for grad, _ in pairs], [mask for _, mask in pairs])

    def restore_unmasked(self) -> None:
        """With reintroduction, put the values that the masks took away back into the weights."""
        if self._reintroduce:
            for index, param in enumerate(self.params):
                self._values.put_back(index, param)

    def disable_reintroduction(self) -> None:
        """Let masked weights stay zero from now on."""
        self.apply()
        self._reintroduce = False
        self._values = MaskedValues(len(self))

    def end(self, leave_enabled: bool) -> None:
        """Mask the weights for good, and keep the masks in force if ``leave_enabled``."""
        self.apply(plain_zeros=True)
        if not leave_enabled:
            self.enabled = False
        self.disable_reintroduction()

    def named_state(self, lifted: bool) -> dict[str, Tensor]:
        """Return the masks as checkpoints hold them, by ``<layer>.<param>.sparsity_mask``.

        Of parameters that several processes share, the whole masks; then all of them must call
        this.

        :param lifted: whether pruning has ended, so that masks not in force are given as ones
        """
        lifted = lifted and not self._enabled
        return {
            name: full_value(torch.ones_like(mask) if lifted else mask)
            for name, mask in zip(self.names, self.param_masks, strict=True)
        }

    def load_named_state(self, state: Mapping[str, Tensor], strict: bool, owner: str) -> None:
        """Restore :meth:`named_state`; masks that ``state`` lacks stay.

        :param owner: whose masks, for the message
        :raises IndexError: with ``strict``, when the names differ
        """
        own = dict(zip(self.names, self.masks, strict=True))
        if strict and set(own) != set(state):
            missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
            raise IndexError(
                f"the masks of {owner} do not fit: missing {missing}, unknown {unknown}"
            )
        self.restore([state.get(name, mask) for name, mask in own.items()])

    def progress_state(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the masks, as plain data and tensors."""
        return {
            "enabled": self._enabled,
            "allow_reintroduction": self._reintroduce,
            "masked_values": self._values.progress_state(),
            "original_sizes": list(self._original_sizes),
        }

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`, and put masks back in force that were."""
        self._reintroduce = state["allow_reintroduction"]
        self._values.load_progress_state(state["masked_values"])
        self._original_sizes = list(state["original_sizes"])
        self.enabled = state["enabled"]

    @property
    def _keeps_values(self) -> bool:
        return self._reintroduce

    def _replace(self, masks: Sequence[Tensor]) -> None:
        self.require_shapes(masks)
        self.restore_unmasked()
        params = self.params
        self._bits = [_bits_like(mask, param) for mask, param in zip(masks, params, strict=True)]
        for index, param in enumerate(params):
            self._values.follow_mask(index, param, self._bits[index])

    def _mask_weights(self, plain_zeros: bool) -> None:
        self._fit()
        params: Sequence[Tensor] = self.params
        if self._keeps_values:
            for index, param in enumerate(params):
                self._values.remember(index, param, self._bits[index])
        masks = self._bits
        if self._sharded:
            params, masks = [local_part(p) for p in params], [local_part(m) for m in masks]
        apply_masks(params, masks, plain_zeros)

    def _fit(self) -> None:
        for index, param in enumerate(self.params):
            mask = self._bits[index]
            if mask.shape != param.shape:  # the layer was made smaller
                self._bits[index] = _all_kept(param)
                self._values.forget(index)
            elif mask.device != param.device:
                self._bits[index] = mask.to(param.device)

    def _follow(self) -> None:
        """Register gradient hooks on parameters that are new, or that have come to need them."""
        for index, param in enumerate(self.params):
            if self._hooked[index] is not param and param.requires_grad:
                old = self._handles[index]
                if old is not None:
                    old.remove()
                hook = partial(self._gradient_ready, index)
                self._handles[index] = param.register_post_accumulate_grad_hook(hook)
                self._hooked[index] = param

    def _unhook(self) -> None:
        for handle in self._handles:
            if handle is not None:
                handle.remove()
        self._hooked, self._handles = [None] * len(self), [None] * len(self)

    def _gradient_ready(self, index: int, param: Tensor) -> None:
        if not self._reintroduce and param.grad is not None:
            self._fit()
            apply_masks([local_part(param.grad)], [local_part(self._bits[index])])


def _all_kept(param: Tensor) -> Tensor:
    return torch.ones_like(param, dtype=torch.bool, requires_grad=False)


def _bits_like(mask: Tensor, param: Tensor) -> Tensor:
    bits = mask.detach().to(param.device).ne(0)
    return shard_like(bits, param)
