"""Masks by name, as checkpoints hold them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from sparseml.pytorch.sparsification.pruning.mask_params import ModuleParamPruningMask
from sparseml.pytorch.utils.tensors.sharded import full_value

__all__ = ["load_named_masks", "named_masks"]


def named_masks(masks: ModuleParamPruningMask, lifted: bool) -> OrderedDict[str, Tensor]:
    """The masks by name, ``<layer>.<param>.sparsity_mask``.

    Of parameters that several processes share, the whole masks; then all of them must call this.

    :param lifted: whether pruning has ended, so that masks not in force are given as ones
    """
    lifted = lifted and not masks.enabled
    return OrderedDict(
        (name, full_value(torch.ones_like(mask) if lifted else mask))
        for name, mask in zip(masks.names, masks.param_masks, strict=True)
    )


def load_named_masks(
    masks: ModuleParamPruningMask, state: Mapping[str, Tensor], strict: bool, owner: str
) -> None:
    """Restore masks, and mask the weights at once; those that ``state`` lacks stay.

    :param owner: whose masks, for the message
    :raises IndexError: with ``strict``, when the names differ
    """
    own = dict(zip(masks.names, masks.param_masks, strict=True))
    if strict and set(own) != set(state):
        missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
        raise IndexError(f"the masks of {owner} do not fit: missing {missing}, unknown {unknown}")
    masks.restore_param_masks([state.get(name, mask) for name, mask in own.items()])
