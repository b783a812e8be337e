"""One process or several (torchrun), and what they have to agree on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import is_distributed_env, world_info_from_env
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sparseml.run.errors import RunError

__all__ = ["Processes", "processes"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many, and on what device it works."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def sum(self, values: list[float]) -> list[float]:
        """Add numbers over all processes."""
        if not self.several:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self._reducible())
        dist.all_reduce(total)
        return [float(value) for value in total]

    def gather(self, value: Any) -> list[Any]:
        """A picklable value of each process, by rank, in every process."""
        if not self.several:
            return [value]
        gathered: list[Any] = [None] * self.count
        dist.all_gather_object(gathered, value)
        return gathered

    def barrier(self) -> None:
        """Wait for all others."""
        if self.several:
            dist.barrier()

    def average_buffers(self, model: nn.Module) -> None:
        """Give batch norms of all processes the mean of their running statistics."""
        if not self.several:
            return
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                dist.all_reduce(buffer)
                buffer /= self.count

    def share(self, model: nn.Module) -> nn.Module:
        """The model as it is trained by all processes together."""
        if not self.several:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids)

    def same(self, tensors: list[Tensor]) -> bool:
        """Whether tensors are bit by bit those of the first process; the answer is the same in all.

        For checks: it broadcasts all of them.
        """
        differ = 0.0
        for tensor in tensors if self.several else []:
            first = tensor.detach().clone()
            dist.broadcast(first, src=0)
            differ += float(not torch.equal(first, tensor.detach()))
        return self.sum([differ])[0] == 0.0

    def _reducible(self) -> torch.device:
        # NCCL reduces what is on a GPU, gloo what is on the CPU
        return self.device if dist.get_backend() == "nccl" else torch.device("cpu")


@contextmanager
def processes(device: str, timeout: float = 1800.0) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did, and part from them at the end.

    :param device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU where there is one; under
        torchrun each process gets the GPU of its local rank
    :param timeout: seconds that processes wait for one another
    :raises RunError: if the device is not there
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise RunError(f"--device {device}: torch finds no GPU")
    local, rank, count = world_info_from_env()
    if not is_distributed_env():
        yield Processes(device=_selected(kind))
        return
    place = _selected(f"cuda:{local}" if kind.startswith("cuda") else kind)
    backend = "nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    _LOGGER.info("process %d of %d on %s", rank, count, place)
    try:
        yield Processes(rank, count, place)
    finally:
        dist.destroy_process_group()


def _selected(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RunError(f"--device {name}: torch knows no such device") from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device
