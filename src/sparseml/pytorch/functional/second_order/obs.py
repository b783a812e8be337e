r"""Optimal Brain Surgeon: what a weight costs, and how the others make up for it.

For blocks with inverse Fisher matrix H and weights w, the quadratic model of the loss says that
removing a set P, with the best compensation by the rest, costs

.. math:: \tfrac12 w_P^T (H_{PP})^{-1} w_P, \qquad
          w \leftarrow w - H_{:,P} (H_{PP})^{-1} w_P

(Hassibi & Stork, 1993; Kurtic et al., "The Optimal BERT Surgeon", 2022, equations 5 and 6).
"""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order import batched
from sparseml.pytorch.functional.second_order.linalg import damped_cholesky, map_rows

BACKENDS = ("auto", "numba", "torch")
"""``numba``: block after block inside the processor's cache, CPU only, needs numba installed.
``torch``: many blocks at once by batched matrix products, any device. ``auto``: numba on the CPU
where it is installed, else torch. All compute the same numbers up to rounding."""

_EPSILON = torch.finfo(torch.float32).eps
_CHUNK_BYTES = 1 << 24


def require_blocks(weights: Tensor, inverse: Tensor, group: int = 1) -> None:
    """Check that weights ``[R, B]`` and inverses ``[R, B, B]`` belong together.

    :raises ValueError: for shapes, dtypes or devices that do not match, weights that are not
        finite, or a group that does not divide B
    """
    if weights.ndim != 2 or inverse.shape != (*weights.shape, weights.shape[1]):
        raise ValueError(
            f"weights are [R, B] and inverses [R, B, B], found {tuple(weights.shape)} and "
            f"{tuple(inverse.shape)}"
        )
    if (weights.dtype, weights.device) != (inverse.dtype, inverse.device):
        raise ValueError(
            f"weights ({weights.dtype} on {weights.device}) and inverses ({inverse.dtype} on "
            f"{inverse.device}) must agree"
        )
    if group < 1 or weights.shape[1] % group:
        raise ValueError(f"groups of {group} do not divide blocks of {weights.shape[1]}")
    if not bool(weights.isfinite().all()):
        raise ValueError("weights to prune hold values that are not finite")


def obs_scores(weights: Tensor, inverse: Tensor, group: int = 1) -> Tensor:
    """What removing each weight, or each group of weights, alone would cost.

    Single weights: ``w_i^2 / (2 H_ii + eps)``, with eps that of float32. Groups Q:
    ``w_Q^T (H_QQ)^-1 w_Q / 2``, given to every entry of the group.

    :param weights: ``[R, B]``
    :param inverse: ``[R, B, B]``
    :param group: entries per group, consecutive within a block
    :return: ``[R, B]``
    :raises ValueError: for arguments that do not belong together
    """
    require_blocks(weights, inverse, group)
    if group == 1:
        return weights**2 / (2 * inverse.diagonal(dim1=1, dim2=2) + _EPSILON)
    parts = weights.view(len(weights), -1, group)
    costs = (parts * _solve_groups(parts, inverse)).sum(-1) / 2
    return costs.repeat_interleave(group, dim=1)


def part_scores(weights: Tensor, inverse: Tensor, units: Tensor) -> Tensor:
    r"""What removing the part of a unit that lies in a block would cost, per weight of the part.

    A unit may lie in many blocks; as these do not depend on each other, it costs what its parts
    cost together, :math:`\sum_b \tfrac12 w_Q^T (H_{QQ})^{-1} w_Q` with Q its part in block b.
    So the sum of the scores of a unit's weights is what removing it costs.

    :param weights: ``[R, B]``
    :param inverse: ``[R, B, B]``
    :param units: the unit of each weight, integers ``[R, B]``
    :return: ``[R, B]``
    :raises ValueError: for arguments that do not belong together
    """
    require_blocks(weights, inverse)
    # weights of one unit next to each other, one run of places for each part
    order = units.argsort(dim=1, stable=True)
    ordered = units.gather(1, order)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    rows, starts = first.nonzero(as_tuple=True)
    ends = torch.cat([rows * units.shape[1] + starts, rows.new_tensor([units.numel()])])
    lengths = ends.diff()
    scores = torch.empty_like(weights)
    for length in lengths.unique().tolist():
        own = (lengths == length).nonzero()[:, 0]
        row = rows[own].unsqueeze(1)
        places = order[row, starts[own].unsqueeze(1) + torch.arange(length, device=row.device)]
        parts = weights[row, places]
        blocks = inverse[row.unsqueeze(2), places.unsqueeze(2), places.unsqueeze(1)]
        costs = (parts * _solve(blocks, parts)).sum(-1, keepdim=True) / 2
        scores[row, places] = (costs / length).expand_as(parts)
    return scores


def simultaneous_update(weights: Tensor, inverse: Tensor, pruned: Tensor, group: int = 1) -> Tensor:
    """Remove weights, each compensated as if it were the only one: the sum of single updates.

    This is the rule of SparseML's OBS modifier. It ignores how the removed weights depend on each
    other; :func:`joint_update` does not.

    :param weights: ``[R, B]``
    :param inverse: ``[R, B, B]``
    :param pruned: weights to remove, bool ``[R, B]``; whole groups
    :param group: entries per group; each group is removed jointly
    :return: new weights ``[R, B]``, exactly zero where pruned
    :raises ValueError: for arguments that do not belong together
    """
    require_blocks(weights, inverse, group)
    if group == 1:
        errors = weights / (inverse.diagonal(dim1=1, dim2=2) + _EPSILON)
    else:
        errors = _solve_groups(weights.view(len(weights), -1, group), inverse).flatten(1)
    errors = torch.where(pruned, errors, 0.0)
    updated = torch.empty_like(weights)

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        change = torch.bmm(inverse[part], errors[part].unsqueeze(-1)).squeeze(-1)
        updated[part] = torch.where(pruned[part], 0.0, weights[part] - change)

    row_bytes = inverse[:1].numel() * inverse.element_size()
    map_rows(work, len(weights), row_bytes, _CHUNK_BYTES, weights.device)
    return updated


def joint_update(
    weights: Tensor,
    inverse: Tensor,
    pruned: Tensor,
    *,
    floor: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Remove a set of weights from each block, with the best compensation by the others.

    The removed weights must have been live when ``inverse`` was made.

    :param weights: ``[R, B]``
    :param inverse: ``[R, B, B]``
    :param pruned: weights to remove, bool ``[R, B]``
    :param floor: see :func:`~sparseml.pytorch.functional.second_order.elimination.eliminate`
    :param backend: one of :data:`BACKENDS`
    :return: new weights ``[R, B]``, exactly zero where pruned; and each block's loss ``[R]``
    :raises ValueError: for arguments that do not belong together
    """
    require_blocks(weights, inverse)
    floor = pivot_floor(inverse) if floor is None else floor
    updated, losses = torch.empty_like(weights), weights.new_empty(len(weights))
    kernels = kernels_for(weights.device, backend)
    kernels.joint_update(weights, inverse, floor, pruned, updated, losses)
    return updated, losses


def kernels_for(device: torch.device, backend: str = "auto") -> ModuleType:
    """Return the module whose ``eliminate`` and ``joint_update`` are for tensors on ``device``.

    :param backend: one of :data:`BACKENDS`
    :raises ValueError: for another backend, or numba off the CPU
    :raises ImportError: for numba where it is not installed
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is one of {BACKENDS}, found {backend!r}")
    on_cpu = device.type == "cpu"
    if backend == "numba" and not on_cpu:
        raise ValueError(f"the numba kernels run on the CPU only, found tensors on {device}")
    if backend == "torch" or not (on_cpu and (backend == "numba" or find_spec("numba"))):
        return batched
    # Imported here because numba is optional and slow to import.
    from sparseml.pytorch.functional.second_order import numba_cpu

    return numba_cpu


def pivot_floor(inverse: Tensor) -> Tensor:
    """What rounding lets one trust of the conditional variances at the very least, ``[R, B]``."""
    info = torch.finfo(inverse.dtype)
    return (inverse.diagonal(dim1=1, dim2=2) * info.eps).clamp_min(info.tiny)


def _solve_groups(parts: Tensor, inverse: Tensor) -> Tensor:
    """``(H_QQ)^-1 w_Q`` for every group of ``parts`` ``[R, B / k, k]``."""
    rows, groups, k = parts.shape
    blocks = inverse.view(rows, groups, k, groups, k).diagonal(dim1=1, dim2=3).movedim(-1, 1)
    return _solve(blocks.flatten(0, 1), parts.reshape(-1, k)).view(parts.shape)


def _solve(blocks: Tensor, parts: Tensor) -> Tensor:
    """``(H_QQ)^-1 w_Q`` for matrices ``[n, k, k]`` and vectors ``[n, k]``."""
    # rounding may have made a part of an ill-conditioned inverse indefinite
    rounding = torch.finfo(blocks.dtype).eps
    factor, _ = damped_cholesky(blocks.double(), 0.0, rounding)
    solved = torch.cholesky_solve(parts.double().unsqueeze(-1), factor)
    return solved.squeeze(-1).to(parts.dtype)
