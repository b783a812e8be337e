"""M-FAC: scores and updates from gradients alone, without a Fisher matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.blocks import BlockLayout, block_layout
from sparseml.pytorch.functional.second_order.mfac import mfac_inverse, mfac_scores, mfac_update
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import require_free
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.sparsification.pruning.methods.trials import best_of_decades
from sparseml.pytorch.sparsification.pruning.sampling.sample_capture import Gradients
from sparseml.pytorch.sparsification.pruning.sampling.shards import Piece, exchange, share_out
from sparseml.pytorch.sparsification.pruning.settings.memory import describe_bytes
from sparseml.pytorch.utils.distributed import add_up, process_rank, world_size
from sparseml.pytorch.utils.layer_kinds import to_out_in

_OVERHEAD = 1.1
"""The gradient that is being taken, and what is computed in double precision a part at a time."""


@dataclass(frozen=True)
class MFACSettings:
    """How M-FAC estimates.

    :param num_grads: how many gradients, or numbers by the sparsity up to which they hold
    :param damp: dampening, absolute
    :param block_size: weights per block, None for one block
    :param num_pages: in how many pieces gradients are brought to the device
    :param devices: where to compute
    :param home: where gradients are kept
    :param implementation: ``auto``, ``block`` or ``small_block``
    :param relative: whether ``damp`` is relative, to the mean squared gradient of a weight
    :param auto: whether ``damp`` is not asked, and several are tried
    """

    num_grads: int | Mapping[float, int]
    damp: float
    block_size: int | None
    num_pages: int
    devices: list[str]
    home: str
    implementation: str = "auto"
    relative: bool = False
    auto: bool = False

    def needed(self, sparsity: float) -> int:
        """How many gradients to take at a sparsity: those of the smallest key not below it."""
        if not isinstance(self.num_grads, Mapping):
            return self.num_grads
        keys = sorted(self.num_grads)
        return self.num_grads[next((key for key in keys if key >= sparsity), keys[-1])]

    @property
    def most(self) -> int:
        """The most gradients that are ever taken."""
        counts = self.num_grads
        return max(counts.values()) if isinstance(counts, Mapping) else counts

    def values(self, size: int) -> int:
        """How many numbers the gradients of ``size`` weights are, and what comes of them."""
        block, count = self.block_size or size, self.most
        dense = {"auto": bool(self.block_size) and block <= count, "small_block": True}
        inverse = min(block, size) * size if dense.get(self.implementation) else 2 * count**2
        # with several dampenings a copy of the gradients is overwritten for each
        return count * size * (2 if self.auto else 1) + inverse


class MFAC(Method):
    """Frantar, Kurtic & Alistarh, "M-FAC" (2021).

    Without a sampler the gradients of the training are kept instead, those of the last steps.

    :param owner: the modifier, for messages
    :param settings: how it estimates
    """

    samples = True
    keeps_zeros = True
    _progress = ("_recent",)

    def __init__(self, owner: str, settings: MFACSettings) -> None:
        self._owner, self._settings = owner, settings
        self._recent: list[Tensor] = []
        self.buffers = False

    @torch.no_grad()
    def observe(self, masks: MaskSet) -> None:
        """Keep the gradients of this step, if they are not sampled and all are finite."""
        params = masks.params
        if not self.buffers or any(param.grad is None for param in params):
            return
        grads = [
            to_out_in(one.layer, one.param_name, one.param.grad)
            for one in masks.found
            if one.param.grad is not None
        ]
        row = torch.cat([one.flatten().to(self._settings.home, _dtype(params)) for one in grads])
        if not bool(row.isfinite().all()):
            return
        most = self._settings.most
        self._recent = [*self._recent[-(most - 1) :], row] if most > 1 else [row]

    def describe(self, problem: Problem) -> str:
        size = sum(int(live.sum()) for live in problem.live)
        layout = block_layout([size], self._settings.block_size or size)
        columns = _own_columns(layout, size)
        count = self._settings.most
        values = self._settings.values(columns.stop - columns.start)
        needed = math.ceil(_OVERHEAD * values * _dtype(problem.weights).itemsize)
        advice = "Lower num_grads or fisher_block_size, or keep gradients elsewhere by grads_device"
        home = torch.device(self._settings.home)
        require_free(self._owner, f"{count} gradients", needed, home, advice)
        return f"{count} gradients of {size} weights take {describe_bytes(needed)} on {home}"

    @torch.no_grad()
    def decide(
        self, problem: Problem, targets: Sequence[Target], only: Sequence[int] | None = None
    ) -> list[Outcome]:
        """Decide by one estimate; a RuntimeError while too few gradients have been kept."""
        problem.require_finite(self._owner)
        live = problem.live
        weights = _live_vector(problem.weights, live)
        size = len(weights)
        layout = block_layout([size], self._settings.block_size or size)
        columns = _own_columns(layout, size)
        own = weights[columns].to(self._settings.home)
        gradients = cache(partial(self._gradients, problem, layout, columns))

        def attempt(damp: float, relative: bool, keep: bool) -> list[Outcome]:
            chosen, grads = self._settings, gradients()
            if relative:
                squares = torch.stack([grads.double().square().sum(), _count(grads)])
                total, count = add_up(squares).tolist()
                damp *= total / max(count, 1.0)
            how = (chosen.block_size, chosen.num_pages, chosen.devices, chosen.implementation)
            inverse = mfac_inverse(grads.clone() if keep else grads, damp, *how)
            scores = _everyones(mfac_scores(own, inverse), columns, size)
            spread = _spread(scores, live, -torch.inf)
            outcomes = []
            for target in targets:
                masks = problem.select(spread, problem.one_each(target), only, keep_zeros=True)
                pruned = _live_vector([~mask for mask in masks], live).to(own.device)
                new = _everyones(mfac_update(own, inverse, pruned[columns]), columns, size)
                pairs = zip(_spread(new, live, 0.0), problem.weights, strict=True)
                outcomes.append(problem.outcome(masks, [new.to(old) for new, old in pairs]))
            return outcomes

        if not self._settings.auto:
            return attempt(self._settings.damp, self._settings.relative, keep=False)
        count = self._settings.needed(1.0 - size / sum(one.numel() for one in live))
        return best_of_decades(
            self._owner, problem, targets, count, lambda damp, _: attempt(damp, True, keep=True)
        )

    def _gradients(self, problem: Problem, layout: BlockLayout, columns: slice) -> Tensor:
        """Those of this rank's columns, ``[N, columns]``."""
        dtype = _dtype(problem.weights)
        total = sum(live.numel() for live in problem.live)
        needed = self._settings.needed(1.0 - layout.shape[0] / total)
        if self.buffers:
            if len(self._recent) < needed:
                raise RuntimeError(
                    f"{self._owner} needs {needed} gradients of the training to prune by, and has "
                    f"kept {len(self._recent)}; start later, lower num_grads, or give a "
                    "grad_sampler"
                )
            live = torch.cat([one.flatten() for one in problem.live]).to(self._settings.home)
            return torch.stack([row[live][columns] for row in self._recent[-needed:]])
        width = columns.stop - columns.start
        rows = torch.empty(needed, width, dtype=dtype, device=self._settings.home)
        taken = 0

        def vectors(one: Gradients, _: int = 0) -> Tensor:
            parts = [one.of(index)[:, live] for index, live in enumerate(problem.live)]
            return torch.cat([part.to(parts[0].device) for part in parts], dim=1)

        found = problem.gradients(needed)
        if problem.same_gradients:
            received = (vectors(one)[:, columns] for one in found)
        else:
            joined = (Gradients(one.count, partial(vectors, one)) for one in found)
            pieces = exchange(joined, _owners(layout), [layout], dtype)
            # a rank may have no columns at all
            received = (torch.cat([p.flatten(1) for p in own], 1) for own in pieces if own)
        for row in received:
            rows[taken : taken + len(row)] = row[:, :width]
            taken += len(row)
        problem.require_sound()
        return rows


def _count(grads: Tensor) -> Tensor:
    return torch.tensor(grads.numel(), dtype=torch.float64, device=grads.device)


def _owners(layout: BlockLayout) -> list[list[Piece]]:
    """One block is everybody's: it takes products over all weights."""
    pieces, ranks = [Piece(0, slice(0, layout.num_blocks))], world_size()
    return [pieces] * ranks if layout.num_blocks == 1 else share_out(pieces, [layout], ranks)


def _own_columns(layout: BlockLayout, size: int) -> slice:
    own = _owners(layout)[process_rank()]
    if not own:
        return slice(size, size)
    first, last = own[0].rows.start, own[-1].rows.stop
    return slice(first * layout.block_size, min(size, last * layout.block_size))


def _everyones(values: Tensor, columns: slice, size: int) -> Tensor:
    """The vector whose columns the ranks hold."""
    if columns == slice(0, size):
        return values
    full = values.new_zeros(size)
    full[columns] = values
    return add_up(full)


def _dtype(params: Sequence[Tensor]) -> torch.dtype:
    wide = any(param.dtype == torch.float64 for param in params)
    return torch.float64 if wide else torch.float32


def _live_vector(tensors: Sequence[Tensor], live: Sequence[Tensor]) -> Tensor:
    parts = [tensor.detach()[own] for tensor, own in zip(tensors, live, strict=True)]
    vector = torch.cat([part.to(parts[0].device) for part in parts])
    return vector if vector.dtype == torch.bool else vector.to(_dtype(tensors))


def _spread(vector: Tensor, live: Sequence[Tensor], rest: float) -> list[Tensor]:
    """Undo :func:`_live_vector`; what is not live becomes ``rest``."""
    spread = []
    for own, part in zip(live, vector.split([int(one.sum()) for one in live]), strict=True):
        full = torch.full(own.shape, rest, dtype=vector.dtype, device=own.device)
        full[own] = part.to(own.device)
        spread.append(full)
    return spread
