"""Parameters of which every process of a run holds a part (FSDP2's, for example).

These are :class:`torch.distributed.tensor.DTensor`. Plain tensors pass through all functions here
as they are.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor


def is_sharded(tensor: Any) -> bool:
    """Whether ``tensor`` is a DTensor."""
    # no such tensor exists before its module was imported, which takes a while
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def full_value(tensor: Tensor) -> Tensor:
    """Return the whole value on every process; all of them must call this."""
    whole: Any = tensor.detach()
    return whole.full_tensor() if is_sharded(whole) else whole


def local_part(tensor: Tensor) -> Tensor:
    """Return the part that this process holds, sharing memory with ``tensor``."""
    part: Any = tensor.detach()
    return part.to_local() if is_sharded(part) else part


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """``value``, which all processes have, in parts as those of ``like``; all must call this.

    :param value: of the shape of ``like``, on its device
    """
    if is_sharded(value) or not is_sharded(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    layout: Any = like
    return distribute_tensor(value, layout.device_mesh, layout.placements)
