"""Inverse block Fisher matrices of a model's weights, group by group and shared out over ranks."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.blocks import BlockInverse, BlockLayout
from sparseml.pytorch.functional.second_order.fisher import BlockFisher
from sparseml.pytorch.sparsification.pruning.methods.method import Problem
from sparseml.pytorch.sparsification.pruning.sampling.shards import Piece, exchange, share_out
from sparseml.pytorch.sparsification.pruning.settings.memory import describe_bytes, parse_bytes
from sparseml.pytorch.utils.distributed import (
    add_up,
    any_rank,
    is_distributed,
    process_rank,
    world_size,
)

_LOGGER = logging.getLogger(__name__)
_OPEN_FILES = "/proc/self/fd"  # by which files without a name can be opened
_OVERHEAD = 1.25
"""Sums of products, and the gradients that wait to be multiplied in."""

Held = list[tuple[Piece, BlockInverse]]
"""The inverses that this rank holds."""
Sums = list[tuple[Piece, BlockFisher]]
"""What they are made of."""


@dataclass(frozen=True)
class FisherSettings:
    """How Fisher matrices are estimated and where they live.

    :param num_grads: gradients for each estimate, of all ranks together
    :param damp: dampening, absolute
    :param relative: whether ``damp`` is relative, to the mean diagonal of the Fisher matrices that
        are estimated at a time; M-FAC and FastCAP have rules of their own
    :param auto: whether ``damp`` is not asked, and several are tried
    :param dtype: float32 or float64
    :param device: None for that of each weight
    :param memory: how much each rank may take, as ``4GB``; None for all it takes to do everything
        at once
    :param folder: where inverses of groups are put aside, instead of sampling a second time
    """

    num_grads: int
    damp: float
    dtype: torch.dtype = torch.float32
    device: torch.device | None = None
    memory: str | None = None
    folder: str | None = None
    relative: bool = False
    auto: bool = False


@dataclass(frozen=True)
class FisherPasses:
    """Estimates and inverts Fisher matrices of groups of blocks.

    :param layouts: how the problem's weights are cut into blocks
    :param owner: the modifier, for messages
    :param warn: is told what is wrong with the dampening
    :param sums: where sums of products of gradients are put, to be inverted with other dampenings
        once more; None to invert them in their own memory
    """

    problem: Problem
    layouts: Sequence[BlockLayout]
    settings: FisherSettings
    owner: str
    warn: Callable[[str], None] = _LOGGER.warning
    sums: list[Sums] | None = None

    def sets(self) -> list[tuple[list[int], list[list[Piece]]]]:
        """Return sets of weights that are decided on by themselves, each in its groups.

        :raises RuntimeError: if not even one block fits the memory
        """
        everything = list(range(len(self.layouts)))
        if self.settings.memory is None:
            blocks = [slice(0, one.num_blocks) for one in self.layouts]
            return [(everything, [list(map(Piece, everything, blocks))])]
        if self.problem.budget.joint:
            return [(everything, self._groups(everything, self.settings.memory))]
        sets: list[tuple[list[int], list[list[Piece]]]] = []
        for index in everything:
            together = [*sets[-1][0], index] if sets else []
            if sets and len(groups := self._groups(together, self.settings.memory)) == 1:
                sets[-1] = (together, groups)
            else:
                sets.append(([index], self._groups([index], self.settings.memory)))
        return sets

    def _groups(self, indices: Sequence[int], memory: str) -> list[list[Piece]]:
        """Cut weights into groups whose Fisher matrices fit the memory, all ranks' together."""
        pieces = [Piece(i, slice(0, self.layouts[i].num_blocks)) for i in indices]
        largest = max(self.layouts[index].block_size for index in indices)
        least = math.ceil(
            (_OVERHEAD + self.settings.auto) * largest**2 * self.settings.dtype.itemsize
        )
        if parse_bytes(memory) < least:
            raise RuntimeError(
                f"fisher_memory must be {describe_bytes(least)} at least, which one block of "
                f"{largest} weights takes, found {memory}; or use a smaller fisher_block_size"
            )
        blocks = sum(self.layouts[index].num_blocks for index in indices)
        count = min(blocks, -(-self._bytes(pieces) // (parse_bytes(memory) * world_size())))
        return [group for group in share_out(pieces, self.layouts, count) if group]

    def require_memory(self, group: Sequence[Piece]) -> int:
        """Check that a group fits, on each rank its share; all ranks raise if one has to.

        :return: what its Fisher matrices take on all ranks together, in bytes
        :raises RuntimeError: with what could be done about it
        """
        device = self.settings.device or self.problem.weights[group[0].index].device
        advice = (
            "Set fisher_memory: '{half}' to estimate them group by group, use a smaller "
            "fisher_block_size, or fisher_inv_device: cpu"
        )
        needed = self._bytes(group)
        require_free(self.owner, "Fisher matrices", needed / world_size(), device, advice)
        return needed

    def _bytes(self, pieces: Iterable[Piece]) -> int:
        """What the Fisher matrices of some blocks take."""
        sizes = ((one.rows.stop - one.rows.start, self.layouts[one.index]) for one in pieces)
        values = sum(rows * layout.block_size**2 for rows, layout in sizes)
        # the sums stay beside their inverses
        overhead = _OVERHEAD + self.settings.auto
        return math.ceil(overhead * values * self.settings.dtype.itemsize)

    def inverses(self, group: list[Piece]) -> Held:
        """Sample gradients for one group of blocks, and invert what is this rank's to hold.

        :raises RuntimeError: naming a parameter without gradient, and when too many gradients are
            not finite
        """
        problem, settings, layouts = self.problem, self.settings, self.layouts
        if not self.sums:
            self.require_memory(group)
            problem.require_finite(self.owner)
            several, own = is_distributed(), group
            if several:
                owners = share_out(group, layouts, world_size())
                own = owners[process_rank()]
            fishers = [
                BlockFisher(
                    layouts[piece.index],
                    dtype=settings.dtype,
                    device=settings.device or problem.weights[piece.index].device,
                    blocks=piece.rows,
                )
                for piece in own
            ]
            gradients = problem.gradients(settings.num_grads, sorted({p.index for p in group}))
            if several and not problem.same_gradients:
                for parts in exchange(gradients, owners, layouts, settings.dtype):
                    for fisher, part in zip(fishers, parts, strict=True):
                        fisher.accumulate_blocks(part)
            else:
                for one in gradients:
                    for piece, fisher in zip(own, fishers, strict=True):
                        blocks = layouts[piece.index].to_blocks(one.of(piece.index))
                        fisher.accumulate_blocks(blocks[:, piece.rows])
            problem.require_sound()
            summed = list(zip(own, fishers, strict=True))
            if self.sums is not None:
                self.sums.append(summed)
        else:
            summed = self.sums[0]
        damp = settings.damp * (self._mean_diagonal(summed) if settings.relative else 1.0)
        held: Held = []
        name = ""
        try:
            for piece, fisher in summed:
                name, live = problem.names[piece.index], problem.live[piece.index]
                held.append((piece, fisher.factor(damp, live, keep=self.sums is not None)))
        except ValueError as error:
            raise ValueError(f"{self.owner}: {name}: {error}") from error
        if any(bool((inverse.dampening > damp * (1 + 1e-6)).any()) for _, inverse in held):
            self._tell_raised(held, damp)
        return held

    def _tell_raised(self, held: Held, damp: float) -> None:
        dampings = [inverse.dampening for _, inverse in held]
        raised = sum(int((one > damp * (1 + 1e-6)).sum()) for one in dampings)
        highest = max(float(one.max()) for one in dampings if len(one))
        self.warn(
            f"{self.owner}: {raised} of {sum(map(len, dampings))} Fisher blocks were not "
            f"positive definite with damp {damp:g}; they got more dampening, at most "
            f"{highest:g}. Set damp: {highest:g}, take more gradients, or use fisher_dtype: "
            "float64"
        )

    def _mean_diagonal(self, fishers: Iterable[tuple[Piece, BlockFisher]]) -> float:
        """The mean squared gradient of a weight, over the weights that are left, on all ranks."""
        total = torch.zeros(2, dtype=torch.float64)
        for piece, fisher in fishers:
            blocks = self.layouts[piece.index].to_blocks(self.problem.live[piece.index])
            live = blocks[piece.rows].to(fisher.blocks.device)
            total[0] += (fisher.diagonal() * live).sum(dtype=torch.float64).cpu()
            total[1] += live.sum().cpu()
        squares, count = add_up(total).tolist()
        if not squares > 0.0:
            raise ValueError(
                f"{self.owner}: all gradients are zero, so a dampening relative to the Fisher "
                "matrix is none; set damp to a number"
            )
        return float(squares / count)

    def joined(self, indices: Sequence[int], found: Iterable[tuple[Piece, Tensor]]) -> list[Tensor]:
        """Put the blocks that all ranks hold together to tensors of the weights' shapes.

        Every block is held once, so that adding up the ranks' shares is exact.

        :param indices: the weights to put together
        :param found: pieces of this rank with their blocks ``[R, B]``
        """
        blocks = {
            index: torch.zeros(
                (self.layouts[index].num_blocks, self.layouts[index].block_size),
                dtype=self.settings.dtype,
                device=self.problem.weights[index].device,
            )
            for index in indices
        }
        for piece, values in found:
            blocks[piece.index][piece.rows] = values.to(blocks[piece.index])
        if is_distributed():
            blocks = {index: add_up(own) for index, own in blocks.items()}
        return [self.layouts[index].from_blocks(blocks[index]) for index in indices]


def put_aside(held: Held, folder: str) -> Held:
    """Move inverses to files of ``folder`` that are mapped into memory, and vanish when unused.

    Where the system lets a file be without a name, they vanish also when the process is killed.

    :raises OSError: where they cannot be written
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    moved: Held = []
    for piece, inverse in held:
        values = inverse.inverse
        with _passing_file(folder) as (file, name):
            _reserve(file.fileno(), values.numel() * values.element_size(), folder)
            mapped = torch.from_file(name, shared=True, size=values.numel(), dtype=values.dtype)
            mapped.copy_(values.flatten())
        moved.append((piece, dataclasses.replace(inverse, inverse=mapped.view(values.shape))))
    return moved


@contextmanager
def _passing_file(folder: str) -> Iterator[tuple[Any, str]]:
    """Give a file of a folder that is gone after the block, and what to open it by."""
    if os.path.isdir(_OPEN_FILES):
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file, f"{_OPEN_FILES}/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".fisher") as file:
            yield file, file.name


def _reserve(file: int, size: int, folder: str) -> None:
    """Take the room that a file needs: writing to a mapped file on a full disk kills a process.

    :raises OSError: naming the folder, what is needed and what is free, if there is less
    """
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.truncate(file, size)
    except OSError as error:
        free = shutil.disk_usage(folder).free
        told = (
            f"{error.strerror}: a file of inverse Fisher matrices needs {size / 1e6:.1f} MB, "
            f"{free / 1e6:.1f} MB are free"
        )
        raise OSError(error.errno, told, folder) from error


def free_bytes(device: torch.device) -> int | None:
    """How much of a device's memory can still be taken, None where that is not known."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + int(cached)
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def require_free(
    owner: str, purpose: str, needed: float, device: torch.device, advice: str
) -> None:
    """Check that a device has so many bytes to give; all ranks raise if one has to.

    :param advice: what could be done about it; ``{half}`` is half of what is free
    :raises RuntimeError: if it has not
    """
    free = free_bytes(device)
    if any_rank(free is not None and needed > free):
        half = describe_bytes(0.5 * (free or 0)).replace(" ", "")
        raise RuntimeError(
            f"{owner} needs {describe_bytes(needed)} on {device} for {purpose}, and "
            f"{describe_bytes(free or 0)} are free there. {advice.format(half=half)}"
        )
