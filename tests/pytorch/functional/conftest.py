"""Dense double-precision oracles for second-order pruning, written to be read, not to be fast."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.elimination import Elimination
from sparseml.pytorch.functional.selection import joined, lowest_mask, split_like


class Oracle:
    """One block at a time, every quantity from the dense Fisher matrix F of the live weights."""

    @staticmethod
    def fisher(grads: Tensor, damp: float) -> Tensor:
        """``damp I + mean(g g^T)`` of gradients ``[N, B]``."""
        grads = grads.double()
        return damp * torch.eye(grads.shape[1], dtype=torch.float64) + grads.T @ grads / len(grads)

    @staticmethod
    def best_rest(weights: Tensor, fisher: Tensor, removed: Sequence[int]) -> tuple[Tensor, float]:
        """Minimise the quadratic loss over all weights but the removed ones, which are zero."""
        weights, fisher = weights.double(), fisher.double()
        gone = torch.zeros(len(weights), dtype=torch.bool)
        gone[list(removed)] = True
        new = torch.where(gone, 0.0, weights)
        inner, outer = fisher[~gone][:, ~gone], fisher[~gone][:, gone]
        new[~gone] += torch.linalg.solve(inner, outer @ weights[gone])
        return new, Oracle.loss(weights, new, fisher)

    @staticmethod
    def loss(old: Tensor, new: Tensor, fisher: Tensor) -> float:
        """The quadratic model of the increase of the loss."""
        change = new.double() - old.double()
        return float(change @ fisher.double() @ change / 2)

    @staticmethod
    def greedy(
        weights: Tensor, fisher: Tensor, *, group: int = 1, nm: tuple[int, int] | None = None
    ) -> tuple[list[int], list[float]]:
        """Brute force: at each step try every group and keep the one of least total loss."""
        groups = len(weights) // group
        order: list[int] = []
        losses: list[float] = []
        while True:
            trials = []
            for candidate in range(groups):
                if candidate in order or (nm and _full(order, candidate, nm)):
                    continue
                removed = [g * group + a for g in [*order, candidate] for a in range(group)]
                trials.append((Oracle.best_rest(weights, fisher, removed)[1], candidate))
            if not trials:
                return order, losses
            loss, best = min(trials)
            order.append(best)
            losses.append(loss)

    @staticmethod
    def first(found: Elimination, counts: Tensor) -> Tensor:
        """What the first ``counts`` steps of each block remove, bool ``[R, B]``."""
        gone = torch.zeros(len(found.order), found.block_size // found.group, dtype=torch.bool)
        for block, order, count in zip(gone, found.order, counts.tolist(), strict=True):
            assert bool((order[:count] >= 0).all())
            block[order[:count].long()] = True
        return gone.repeat_interleave(found.group, dim=1)

    @staticmethod
    def cheapest(found: Sequence[Elimination], steps: int) -> list[Tensor]:
        """What the cheapest steps of several eliminations remove, as a pruner chooses them."""
        scores = [one.scores() for one in found]
        keep = lowest_mask(joined(scores), steps * found[0].group)
        return [~one for one in split_like(keep, scores)]

    @staticmethod
    def problem(rows: int, size: int, *, seed: int = 0, samples: int | None = None) -> tuple:
        """Weights ``[R, B]``, correlated gradients ``[N, R, B]`` and Fisher matrices, float64."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        mix = normal(rows, size, size) / size**0.5 + torch.eye(size, dtype=torch.float64)
        grads = torch.einsum("nrb,rbc->nrc", normal(samples or 3 * size, rows, size), mix)
        fishers = torch.stack([Oracle.fisher(grads[:, r], 1e-2) for r in range(rows)])
        return normal(rows, size), grads, fishers


def _full(order: list[int], candidate: int, nm: tuple[int, int]) -> bool:
    keep, of = nm
    return sum(entry // of == candidate // of for entry in order) >= of - keep


@pytest.fixture(params=["torch", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "numba":
        pytest.importorskip("numba")
    return request.param


@pytest.fixture(scope="session")
def oracle() -> type[Oracle]:
    return Oracle
