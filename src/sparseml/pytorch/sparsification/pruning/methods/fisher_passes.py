"""Inverse block Fisher matrices of a model's weights, group by group and shared out over ranks."""

from __future__ import annotations

import dataclasses
import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sparseml.pytorch.functional.block_inverse import BlockInverse
from sparseml.pytorch.functional.block_layout import BlockLayout
from sparseml.pytorch.functional.fisher import BlockFisher
from sparseml.pytorch.functional.kernels import exact_arithmetic
from sparseml.pytorch.sparsification.pruning.methods.method import Problem
from sparseml.pytorch.sparsification.pruning.sampling.shards import (
    Piece,
    exchange,
    share_out,
    whole,
)
from sparseml.pytorch.sparsification.pruning.settings.memory import (
    describe_bytes,
    parse_bytes,
    require_free,
)
from sparseml.pytorch.utils.distributed import process_rank, world_size

__all__ = ["FisherPasses", "FisherSettings", "Held", "plan_groups"]

_LOGGER = logging.getLogger(__name__)
_OVERHEAD = 1.25
"""Sums of products, and the gradients that wait to be multiplied in."""

Held = list[tuple[Piece, BlockInverse]]
"""The inverses that this rank holds."""


@dataclass(frozen=True)
class FisherSettings:
    """How Fisher matrices are estimated and where they live.

    :param num_grads: gradients for each estimate, of all ranks together
    :param damp: absolute dampening
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


def plan_groups(
    indices: Sequence[int], layouts: Sequence[BlockLayout], settings: FisherSettings
) -> list[list[Piece]]:
    """Cut weights into groups whose Fisher matrices fit the memory, all ranks' together.

    :raises RuntimeError: if not even one block does
    """
    pieces = [whole(index, layouts[index]) for index in indices]
    needed = fisher_bytes(pieces, layouts, settings.dtype)
    if settings.memory is None:
        return [pieces]
    budget = parse_bytes(settings.memory) * world_size()
    largest = max(layouts[index].block_size for index in indices)
    least = math.ceil(_OVERHEAD * largest**2 * settings.dtype.itemsize)
    if parse_bytes(settings.memory) < least:
        raise RuntimeError(
            f"fisher_memory must be {describe_bytes(least)} at least, which one block of {largest} "
            f"weights takes, found {settings.memory}; or use a smaller fisher_block_size"
        )
    blocks = sum(piece.count for piece in pieces)
    return [g for g in share_out(pieces, layouts, min(blocks, -(-needed // budget))) if g]


def fisher_bytes(
    pieces: Sequence[Piece], layouts: Sequence[BlockLayout], dtype: torch.dtype
) -> int:
    """What the Fisher matrices of these blocks take, with all that goes with them."""
    values = sum(piece.count * layouts[piece.index].block_size ** 2 for piece in pieces)
    return math.ceil(_OVERHEAD * values * dtype.itemsize)


class FisherPasses:
    """Estimates and inverts Fisher matrices of groups of blocks.

    :param problem: the weights
    :param layouts: how they are cut into blocks
    :param settings: how matrices are estimated
    :param owner: the modifier, for messages
    """

    def __init__(
        self,
        problem: Problem,
        layouts: Sequence[BlockLayout],
        settings: FisherSettings,
        owner: str,
    ) -> None:
        self._problem, self._layouts = problem, layouts
        self._settings, self._owner = settings, owner

    def inverses(self, group: Sequence[Piece]) -> Held:
        """Sample gradients for one group of blocks, and invert what is this rank's to hold.

        :raises RuntimeError: naming a parameter without gradient, and when too many gradients are
            not finite
        """
        self.require_memory(group)
        used = sorted({piece.index for piece in group})
        place = {index: position for position, index in enumerate(used)}
        layouts = [self._layouts[index] for index in used]
        weights = [self._problem.weights[index] for index in used]
        local = [Piece(place[piece.index], piece.rows) for piece in group]
        owners = share_out(local, layouts, world_size())
        own = owners[process_rank()]
        fishers = [
            BlockFisher(
                layouts[piece.index],
                dtype=self._settings.dtype,
                device=self._settings.device or weights[piece.index].device,
                blocks=piece.rows,
            )
            for piece in own
        ]
        taken = 0
        gradients = self._problem.gradients_of(used, self._settings.num_grads)
        dtype, same = self._settings.dtype, self._problem.same_gradients
        for count, parts in exchange(gradients, owners, layouts, dtype, same):
            taken += count
            for fisher, blocks in zip(fishers, parts, strict=True):
                with exact_arithmetic(fisher.blocks.device):
                    fisher.accumulate_blocks(blocks)
        self._problem.require_sound()
        return self._factor([Piece(used[piece.index], piece.rows) for piece in own], fishers)

    def _factor(self, own: Sequence[Piece], fishers: Sequence[BlockFisher]) -> Held:
        held: Held = []
        raised, blocks, highest = 0, 0, self._settings.damp
        for piece, fisher in zip(own, fishers, strict=True):
            with exact_arithmetic(fisher.blocks.device):
                inverse = fisher.factor(self._settings.damp, self._problem.live[piece.index])
            held.append((piece, inverse))
            above = inverse.dampening > self._settings.damp * (1 + 1e-6)
            raised, blocks = raised + int(above.sum()), blocks + len(above)
            highest = max(highest, float(inverse.dampening.max()))
        if raised:
            _LOGGER.warning(
                "%s: %d of %d Fisher blocks were not positive definite with damp %g; they got more "
                "dampening, at most %g. Set damp: %g, take more gradients, or use fisher_dtype: "
                "float64",
                self._owner,
                raised,
                blocks,
                self._settings.damp,
                highest,
                highest,
            )
        return held

    def require_memory(self, group: Sequence[Piece]) -> None:
        """Check that a group fits, on each rank its share; all ranks raise if one has to.

        :raises RuntimeError: with what could be done about it
        """
        device = self._settings.device or self._problem.weights[group[0].index].device
        needed = fisher_bytes(group, self._layouts, self._settings.dtype) / world_size()
        advice = (
            "Set fisher_memory: '{half}' to estimate them group by group, use a smaller "
            "fisher_block_size, or fisher_inv_device: cpu"
        )
        require_free(self._owner, "Fisher matrices", needed, device, advice)


def put_aside(held: Held, folder: str) -> Held:
    """Move inverses to files of ``folder`` that are mapped into memory, and vanish when unused.

    :raises OSError: where they cannot be written
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    moved: Held = []
    for piece, inverse in held:
        values = inverse.inverse
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".fisher") as file:
            mapped = torch.from_file(
                file.name, shared=True, size=values.numel(), dtype=values.dtype
            )
            mapped.copy_(values.flatten())
        moved.append((piece, dataclasses.replace(inverse, inverse=mapped.view(values.shape))))
    return moved


def brought_back(held: Held) -> Held:
    """Inverses on the device of what belongs to them, wherever they were put aside."""
    return [
        (piece, dataclasses.replace(i, inverse=i.inverse.to(i.live.device))) for piece, i in held
    ]
