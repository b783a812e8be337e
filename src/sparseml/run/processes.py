"""One process or several (torchrun), and what they have to agree on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sparseml.pytorch.utils.distributed import (
    add_up,
    difference,
    gather_objects,
    set_deterministic_seeds,
)
from sparseml.run.errors import RunError, few

_LOGGER = logging.getLogger(__name__)

# what torchrun, SLURM, MPI and Open MPI call these numbers in the environment
_COUNT = ("WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
_RANK = ("RANK", "PMI_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
_LOCAL_RANK = ("LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many, and on what device it works."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Return whether this process writes the files and talks to the user."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Return whether there are others."""
        return self.count > 1

    def sum(self, values: list[float]) -> list[float]:
        """Add numbers over all processes."""
        return [float(value) for value in add_up(torch.tensor(values, dtype=torch.float64))]

    def largest(self, number: int | None) -> int:
        """Return the largest number of all processes, in each of them; None counts as 0."""
        if not self.several:
            return number or 0
        found = torch.tensor(number or 0, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def gather(self, value: Any) -> list[Any]:
        """Return a picklable value of each process, by rank, in every process."""
        return gather_objects(value)

    def average_buffers(self, model: nn.Module) -> None:
        """Give batch norms of all processes the mean of their running statistics."""
        if not self.several:
            return
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                dist.all_reduce(buffer)
                buffer /= self.count

    def share(self, model: nn.Module) -> nn.Module:
        """Return the model as it is trained by all processes together."""
        if not self.several:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids)


def require_all_used(model: nn.Module) -> None:
    """Check, after a backward pass, that the loss uses every parameter that is trained.

    Several processes wait for the gradient of each, and torch tells only numbers of those that had
    none, a step later.

    :raises RunError: naming parameters without a gradient
    """
    unused = [
        name.removeprefix("module.")
        for name, param in model.named_parameters()
        if param.requires_grad and param.grad is None
    ]
    if unused:
        raise RunError(
            f"the loss does not use {few(unused)}: several processes cannot train a model with "
            "such parameters; take them out of it, or set their requires_grad to False"
        )


def require_same_everywhere(values: Mapping[str, Any]) -> None:
    """Check that all processes of a distributed run have been given the same.

    :param values: name → plain data
    :raises RunError: naming the first that differs, and who has what
    """
    if told := difference(gather_objects(dict(values))):
        raise RunError(told)


def prepare(seed: int, threads: int | None) -> None:
    """Seed all random generators and set the number of threads."""
    if threads:
        torch.set_num_threads(threads)
    set_deterministic_seeds(seed)


def started_together() -> bool:
    """Return whether others were started with this process; torchrun and SLURM tell."""
    return _number(("WORLD_SIZE", "SLURM_NTASKS"), 1) > 1


@contextmanager
def processes(device: str, timeout: float = 1800.0) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did, and part from them at the end.

    All but the first then log nothing but warnings and errors.

    :param device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU where there is one; under
        torchrun each process gets the GPU of its local rank
    :param timeout: seconds that processes wait for one another
    :raises RunError: if the device is not there
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise RunError(f"--device {device}: torch finds no GPU")
    if not started_together():
        yield Processes(device=_selected(kind))
        return
    local, rank = _number(_LOCAL_RANK, 0), _number(_RANK, 0)
    count = _number(_COUNT, 1)
    place = _selected(f"cuda:{local}" if kind.startswith("cuda") else kind)
    backend = "nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    _LOGGER.info("process %d of %d on %s", rank, count, place)
    if rank:
        logging.getLogger().setLevel(logging.WARNING)
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


def _number(names: Sequence[str], otherwise: int) -> int:
    return next((int(os.environ[name]) for name in names if name in os.environ), otherwise)
