from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.cholesky import damped_cholesky


def test_factors_of_well_conditioned_matrices_take_the_dampening_asked_for():
    root = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrices = root @ root.mT
    before = matrices.clone()
    factors, used = damped_cholesky(matrices, torch.tensor([0.1, 0.2, 0.3]), 1e-16)
    assert used.tolist() == pytest.approx([0.1, 0.2, 0.3])
    damped = matrices + torch.diag_embed(used.unsqueeze(1).expand(-1, 5))
    torch.testing.assert_close(factors @ factors.mT, damped)
    assert torch.equal(matrices, before)


def test_only_the_matrix_that_needs_more_gets_more():
    matrices = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, -1e-3]))]).double()
    factors, used = damped_cholesky(matrices, 1e-6, 1e-7)
    assert float(used[0]) == 1e-6
    # ten times more until half the dampening is left over
    assert float(used[1]) == pytest.approx(1e-2)
    assert bool(factors.isfinite().all())


def test_zero_matrices_are_factored_by_their_dampening():
    factors, used = damped_cholesky(torch.zeros(2, 3, 3, dtype=torch.float64), 4.0, 1e-7)
    assert torch.equal(factors, 2 * torch.eye(3, dtype=torch.float64).expand(2, -1, -1))
    assert used.tolist() == [4.0, 4.0]


def test_not_finite():
    matrices = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    matrices[1, 2, 2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        damped_cholesky(matrices, 1e-3, 1e-7)
    matrices[1, 2, 2] = 1.0
    matrices[1, 2, 1] = float("inf")
    with pytest.raises(ValueError, match="not positive semidefinite"):
        damped_cholesky(matrices, 1e-3, 1e-7)
