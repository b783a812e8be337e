"""Masks beside the parameters that they belong to."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from sparseml.pytorch.functional.masks import apply_masks, pack_mask, unpack_mask
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome, misfit
from sparseml.pytorch.utils.distributed import collective, is_distributed
from sparseml.pytorch.utils.layer_kinds import is_swapped
from sparseml.pytorch.utils.optimizers import states_of
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.parametrized import computed_tensor, parameter_of, rescued
from sparseml.pytorch.utils.tensors.sharded import full_value, is_sharded, local_part, shard_like
from sparseml.utils.text import few


class MaskSet(Mapping[str, Tensor]):
    """The mask (bool, True = keep) of each parameter, by the parameter's name.

    Masks start as all True and do nothing before :attr:`enabled` is set. From then on gradients are
    masked as soon as they are complete, so that gradient clipping and optimizers that step during
    the backward pass see masked gradients; weights are masked whenever :meth:`apply` is called (the
    pruning modifiers do so after each optimizer step, in one operation for all weights).

    Parameters are looked up anew through their layers each time, and masks follow them when a model
    is moved or converted; a parameter that was made smaller gets a new mask. The tensors handed out
    are never changed in place.

    :param found: the parameters
    :param masters: parameter → the float32 copy that an optimizer moves in its place, of the same
        shape, for mixed precision by such copies; they are masked as the parameters are
    :param reintroduce: leave gradients dense, and let :meth:`restore_unmasked` put masked values
        back before each optimizer step, so that masked weights go on training
    :param gradients_only: leave the weights alone
    """

    def __init__(
        self,
        found: Sequence[NamedLayerParam],
        masters: Mapping[Parameter, Tensor] | None = None,
        reintroduce: bool = False,
        *,
        gradients_only: bool = False,
    ) -> None:
        self.layers = [one.layer for one in found]
        self.layer_names = [one.layer_name for one in found]
        self.param_names = [one.param_name for one in found]
        self.full_names = [one.name for one in found]
        self.allow_reintroduction = reintroduce
        params = self.params
        self.bits = [_all_kept(param) for param in params]
        """The masks as they were set last; see :attr:`masks`."""
        self.original_sizes = [param.numel() for param in params]
        """How many weights each parameter had at first; fewer may be left after thinning."""
        self.sharded = any(is_sharded(param) for param in params)
        self.swapped = any(is_swapped(one.layer, one.param_name) for one in found)
        """Whether a parameter has another layout than ``[out, in, *kernel]``."""
        self._computed = any(computed_tensor(one.layer, one.param_name) for one in found)
        self._gradients_only = gradients_only
        self._masters = masters or {}
        self.remembers = False  # whether what an optimizer remembers is left as it is
        self.open_gradients: frozenset[int] = frozenset()
        """Positions of parameters whose gradients only :meth:`mask_gradients` masks."""
        self._store_unmasked = False  # keep what masks take away without reintroducing it
        self._taken: list[Tensor | None] = [None] * len(params)
        self._enabled = False
        self._hooks: dict[int, tuple[Parameter, RemovableHandle]] = {}

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __len__(self) -> int:
        return len(self.layers)

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
            # hooks of parameters are not copied with them
            setattr(copied, name, {} if name == "_hooks" else copy.deepcopy(value, memo))
        # while a model is being copied, some layers cannot be asked yet
        if copied._enabled and all("_parameters" in vars(layer) for layer in copied.layers):
            copied._follow()
        return copied

    @property
    def names(self) -> list[str]:
        """Each mask's name, ``<layer>.<param>.sparsity_mask``."""
        return [f"{name}.sparsity_mask" for name in self.full_names]

    @property
    def params(self) -> list[Parameter]:
        """The parameters as they are now."""
        owners = zip(self.layers, self.param_names, strict=True)
        found = [(layer._parameters.get(name), layer, name) for layer, name in owners]
        return [parameter_of(layer, name) if one is None else one for one, layer, name in found]

    @property
    def found(self) -> list[NamedLayerParam]:
        """The parameters as they are now, with their layers."""
        parts = zip(self.layer_names, self.layers, self.param_names, self.params, strict=True)
        return [NamedLayerParam(*one) for one in parts]

    @property
    def masks(self) -> list[Tensor]:
        """All masks in the parameters' order; each has the shape and the device of its own."""
        return list(self._current()[1])

    @property
    def param_masks(self) -> list[Tensor]:
        """The masks as SparseML 1.x had them: 1 = keep, 0 = prune, in each parameter's dtype."""
        return [mask.to(param.dtype) for param, mask in zip(*self._current(), strict=True)]

    @property
    def params_unmasked(self) -> list[Tensor]:
        """Copies of the parameters as they would be without the masks."""
        return [
            param.detach().clone() if part is None else param.detach() + part.to(param)
            for param, part in zip(self.params, self._taken, strict=True)
        ]

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

        Of a row that a weight norm would divide by zero for, the largest weight stays.

        :param outcome: of all the parameters; masks in their own layout and whole, also where
            parameters are sharded
        :param optimizer: forgets what it remembers of entries whose mask changes
        :raises ValueError: naming the parameter, for another shape
        """
        changes = [outcome[name] for name in self.full_names]
        masks, before = [change.mask for change in changes], self.bits
        if dist.is_available() and dist.is_initialized():
            masks = broadcast_masks(masks)
        keep: Sequence[Tensor | None] = [None] * len(masks)
        if self._computed:
            keep = [rescued(*one) for one in zip(self.layers, self.param_names, masks, strict=True)]
            pairs = zip(masks, keep, strict=True)
            masks = [mask if kept is None else mask | kept for mask, kept in pairs]
        self._replace(masks)
        with torch.no_grad():
            for param, change, kept in zip(self.params, changes, keep, strict=True):
                if change.weight is not None:
                    new = change.weight.to(param.device, param.dtype)
                    new = new if kept is None else torch.where(kept, param, new)
                    param.copy_(shard_like(new, param) if self.sharded else new)
                    if (master := self._masters.get(param)) is not None:
                        master.copy_(new)
        self.apply(plain_zeros=True)
        if optimizer is not None:
            self.forget_changed(optimizer, before)

    def restore(self, masks: Sequence[Tensor]) -> None:
        """Set masks, or raise a ValueError for a wrong shape, and mask weights, enabled or not."""
        self._replace(masks)
        self._mask_weights(plain_zeros=False)

    def apply(self, plain_zeros: bool = False) -> None:
        """Mask the weights, if enabled; with ``plain_zeros``, in rare need, leave no -0.0."""
        if self._enabled:
            self._mask_weights(plain_zeros)

    def forget_changed(self, optimizer: Any, before: Sequence[Tensor]) -> None:
        """Zero what an optimizer remembers of entries whose mask has changed, and mask gradients.

        Momentum of a pruned weight would move it until the next masking, and that of a regrown
        weight belongs to its former life. With reintroduction all weights live on.

        :param optimizer: any object with a ``state`` of the usual form, parameter → name → value,
            or with optimizers inside; every tensor there of the parameter's shape is cleared
        :param before: the masks as they were
        """
        if self.allow_reintroduction or self.remembers:
            return
        params, any_changed = self.params, False
        plain = type(optimizer).__module__.startswith("torch.optim.")  # those hold no others
        states = [optimizer.state] if plain else states_of(optimizer)
        local = local_part if self.sharded else Tensor.detach
        for param, old, new in zip(params, before, self.bits, strict=True):
            if old is new or old.shape != new.shape:
                continue
            changed = local(old) != local(new)
            if not bool(changed.any()):
                continue
            any_changed = True
            for value in (v for state in states for v in state.get(param, {}).values()):
                if isinstance(value, Tensor) and value.shape == param.shape:
                    local(value).masked_fill_(changed.to(value.device), 0)
        if any_changed and self._enabled:
            pairs: Any = [*zip(params, self.bits, strict=True)]
            pairs += [(self._masters[p], mask) for p, mask in pairs if p in self._masters]
            ready = [(local(p.grad), local(mask)) for p, mask in pairs if p.grad is not None]
            apply_masks([grad for grad, _ in ready], [mask for _, mask in ready])

    def mask_gradients(self) -> None:
        """Mask all gradients that there are, if enabled."""
        left, self.open_gradients = self.open_gradients, frozenset()
        for index, param in enumerate(self._current()[0] if self._enabled else ()):
            self._gradient_ready(index, param)
        self.open_gradients = left

    def restore_unmasked(self) -> None:
        """With reintroduction, put the values that the masks took away back into the weights."""
        if self.allow_reintroduction:
            for index, param in enumerate(self.params):
                self._put_back(index, param)

    def disable_reintroduction(self) -> None:
        """Let masked weights stay zero from now on."""
        self.apply()
        self.allow_reintroduction = False
        self._taken = [None] * len(self)

    def end(self, leave_enabled: bool) -> None:
        """Mask the weights for good, and keep the masks in force if ``leave_enabled``."""
        self.apply(plain_zeros=True)
        if not leave_enabled:
            self.enabled = False
        self.disable_reintroduction()

    def named_state(self, lifted: bool) -> dict[str, Tensor]:
        """Return the masks as checkpoints hold them, by ``<layer>.<param>.sparsity_mask``.

        Of parameters that processes share, the whole masks; then all of them must call this.

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
                f"the masks of {owner} do not fit: missing {few(missing)}, unknown {few(unknown)}"
            )
        self.restore([state.get(name, mask) for name, mask in own.items()])

    def progress_state(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the masks, as plain data and tensors."""
        return {
            "enabled": self._enabled,
            "allow_reintroduction": self.allow_reintroduction,
            "masked_values": list(self._taken),  # never changed in place
            "original_sizes": list(self.original_sizes),
        }

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`, and put masks back in force that were."""
        self.allow_reintroduction = state["allow_reintroduction"]
        self._taken = list(state["masked_values"])
        self.original_sizes = list(state["original_sizes"])
        self.enabled = state["enabled"]

    def _replace(self, masks: Sequence[Tensor | None]) -> None:
        params, bits = self.params, []
        if len(masks) != len(params):
            raise ValueError(f"{len(params)} masks are needed, found {len(masks)}")
        for name, param, mask in zip(self.full_names, params, masks, strict=True):
            if mask is None or mask.shape != param.shape:
                raise misfit(name, param, mask)
            kept = mask.detach().to(param.device).ne(0)
            bits.append(shard_like(kept, param) if self.sharded else kept)
        if self.allow_reintroduction:
            self.restore_unmasked()
        self.bits = bits
        for index, (param, kept, part) in enumerate(zip(params, bits, self._taken, strict=True)):
            if part is not None:
                everything = param.detach() + part.to(param)
                self._taken[index] = torch.where(~kept, everything, 0.0)

    def _mask_weights(self, plain_zeros: bool) -> None:
        params, masks = self._current()
        if self._gradients_only:
            return
        if self.allow_reintroduction or self._store_unmasked:
            for index, (param, mask) in enumerate(zip(params, masks, strict=True)):
                if self._taken[index] is None:  # else it has been taken already
                    self._taken[index] = torch.where(~mask, param.detach(), 0.0)
        weights: Sequence[Tensor] = params
        if self.sharded:
            weights, masks = list(map(local_part, params)), list(map(local_part, masks))
        apply_masks(weights, masks, plain_zeros)
        if self._masters:
            pairs = [(self._masters.get(p), m) for p, m in zip(params, masks, strict=True)]
            held = [(master.detach(), mask) for master, mask in pairs if master is not None]
            apply_masks([master for master, _ in held], [mask for _, mask in held], plain_zeros)

    def _current(self) -> tuple[list[Parameter], list[Tensor]]:
        """Return the parameters as they are now, and their masks; hook what needs a hook."""
        params = self.params
        for index, (param, mask) in enumerate(zip(params, self.bits, strict=True)):
            if mask.shape != param.shape:  # the layer was made smaller
                self.bits = [*self.bits]
                self.bits[index], self._taken[index] = _all_kept(param), None
            elif mask.device != param.device:
                self.bits = [*self.bits]
                self.bits[index] = mask.to(param.device)
            if self._enabled and param.requires_grad:
                hooked, handle = self._hooks.get(index, (None, None))
                if hooked is not param:
                    if handle is not None:
                        handle.remove()
                    ready = partial(self._gradient_ready, index)
                    handle = param.register_post_accumulate_grad_hook(ready)
                    self._hooks[index] = param, handle
        return params, self.bits

    def _follow(self) -> None:
        self._current()

    def _unhook(self) -> None:
        for _, handle in self._hooks.values():
            handle.remove()
        self._hooks = {}

    def _gradient_ready(self, index: int, param: Tensor) -> None:
        if self.allow_reintroduction or index in self.open_gradients:
            return
        mask, own = self._current()[1][index], self._masters.get(cast(Parameter, param))
        for one in [tensor for tensor in (param, own) if tensor is not None]:
            if one.grad is not None:
                apply_masks([local_part(one.grad)], [local_part(mask)])

    def _put_back(self, index: int, param: Tensor) -> None:
        part = self._taken[index]
        if part is not None:
            param.data.add_(part.to(param))
            self._taken[index] = None


def broadcast_masks(masks: Sequence[Tensor]) -> list[Tensor]:
    """Return the masks of rank 0, on every rank; in a run of one process the masks as given.

    They travel in one message of one bit per weight.

    :param masks: 0/1 masks, of equal shapes on all ranks
    """
    if not masks or not is_distributed():
        return list(masks)
    packed = [pack_mask(mask)[0].to(masks[0].device) for mask in masks]
    message = torch.cat(packed)
    with collective("exchanging masks"):
        dist.broadcast(message, src=0)
    pieces = message.split([piece.numel() for piece in packed])
    return [
        unpack_mask(piece.to(mask.device), mask.shape, mask.dtype)
        for piece, mask in zip(pieces, masks, strict=True)
    ]


def _all_kept(param: Tensor) -> Tensor:
    return torch.ones_like(param, dtype=torch.bool, requires_grad=False)
