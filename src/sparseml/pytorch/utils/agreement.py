"""Whether the processes of a run that train one model together have been given the same."""

from __future__ import annotations

import gc
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch.distributed as dist
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from sparseml.pytorch.utils.distributed import (
    collective,
    difference,
    is_distributed,
    process_rank,
    world_size,
)
from sparseml.pytorch.utils.tensors.sharded import is_sharded

_LOGGER = logging.getLogger(__name__)


class _Left(NamedTuple):
    """What a rank has left.

    :param place: of this one among those whose models the rank trains together with others, in the
        order of their first steps; None before that, -1 for what it does alone
    """

    place: int | None
    values: dict[str, Any]


class Agreement:
    """What all ranks that train a model together should have been given alike.

    A collective would hang where only some of the ranks come. So each leaves what it has been given
    in the store of the process group, and looks later, when the others must have come if they are
    to come, for what they have left. Some ranks may make others beside, for what they do alone:
    each tells, when it looks, whether its model is trained together with others.

    :param values: name → plain data, strings as keys
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        if (store := _store()) is not None:
            with collective("telling the others"):
                self._number = len(_left_by(process_rank(), store))
                self._leave(None, store)

    def require(self, module: Module) -> None:
        """Check what others have left for this model; of those that left nothing, nothing is said.

        Where nothing tells that they train it together, as where gradients are averaged by hand, a
        difference is only warned of.

        :param module: whose gradients have just been computed
        :raises RuntimeError: naming what differs first
        """
        if (store := _store()) is None:
            return
        own, everyone = process_rank(), range(world_size())
        with collective("asking what the others have been given"):
            left = {rank: _left_by(rank, store) for rank in everyone}
            alike = all(one.values == self._values for each in left.values() for one in each)
            # where there is nothing to tell, it need not be looked for
            ranks = list(everyone) if alike else training_ranks(module)
            together = bool(ranks)
            place = sum(one.place is not None and one.place >= 0 for one in left.pop(own))
            each = {own: self._values}
            for rank in ranks or everyone:
                if rank != own:
                    each[rank] = self._counterpart(left[rank], place if together else None)
            self._leave(place if together else -1, store)
        told = difference([each[rank] for rank in sorted(each)], sorted(each))
        if told and together:
            raise RuntimeError(told)
        if told:
            text = "%s; nothing tells whether they train one model together: if so, masks differ"
            _LOGGER.warning(text, told)

    def _counterpart(self, left: Sequence[_Left], place: int | None) -> dict[str, Any]:
        """Return what another rank has been given for this model; the own, if it cannot be told.

        :param left: by that rank, in order
        :param place: of this one, None if it is not trained together with others
        """
        if place is None:  # in the order in which they were made
            found = left[self._number : self._number + 1]
        else:
            reached = [one for one in left if one.place == place]
            found = reached or [one for one in left if one.place is None]
        values = [one.values for one in found]
        return self._values if not values or self._values in values else values[-1]

    def _leave(self, place: int | None, store: Any) -> None:
        store.set(_key(process_rank(), self._number), json.dumps([place, self._values]))


def training_ranks(module: Module) -> list[int]:
    """Return the ranks that torch lets train a model together; none where it does not.

    :param module: itself, or what is in it or around it, may be a ``DistributedDataParallel`` or a
        ``FullyShardedDataParallel``, or its parameters may be sharded
    """
    params = {id(param) for param in module.parameters()}
    if any(is_sharded(param) for param in module.parameters()):
        return list(range(world_size()))
    kinds = _sharing_kinds()
    around: list[Any] = [one for one in module.modules() if type(one) in kinds]
    if not around:  # then one is around the module, which knows nothing of that
        every: list[Any] = [one for one in gc.get_objects() if type(one) in kinds]
        around = [one for one in every if any(id(param) in params for param in one.parameters())]
    return dist.get_process_group_ranks(around[0].process_group) if around else []


def _sharing_kinds() -> set[type]:
    """Return the wrappers by which torch lets several ranks train a model, and their subclasses."""
    # none is in use before its module was imported, which takes a while
    sharded = sys.modules.get("torch.distributed.fsdp.fully_sharded_data_parallel")
    found: set[type] = set()
    left = [DistributedDataParallel, *([sharded.FullyShardedDataParallel] if sharded else [])]
    while left:
        kind = left.pop()
        found.add(kind)
        left += kind.__subclasses__()
    return found


def _left_by(rank: int, store: Any) -> list[_Left]:
    left: list[_Left] = []
    while store.check([_key(rank, len(left))]):
        left.append(_Left(*json.loads(store.get(_key(rank, len(left))))))
    return left


def _key(rank: int, number: int) -> str:
    return f"sparseml/agreement/{rank}/{number}"


def _store() -> Any:
    """Return what the process group has to leave something in for others; None if there is none."""
    if not is_distributed():
        return None
    return getattr(dist.distributed_c10d, "_get_default_store", lambda: None)()
