from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.second_order.linalg import (
    damped_cholesky,
    exact_arithmetic,
    map_rows,
)

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [0, 1, 2, 10])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_every_row_once(threads, rows, chunk):
    seen = torch.zeros(rows, dtype=torch.int64)

    def work(start: int, stop: int) -> None:
        assert not torch.is_grad_enabled()
        seen[start:stop] += 1

    map_rows(work, rows, 1, chunk, CPU)
    assert seen.tolist() == [1] * rows
    assert torch.get_num_threads() == threads


def test_one_blas_thread_in_each_of_several(threads):
    used: list[int] = []
    map_rows(lambda *_: used.append(torch.get_num_threads()), 9, 1, 1, CPU)
    assert used == [1] * 9


def test_errors_arrive_and_settings_are_put_back(threads):
    def work(start: int, stop: int) -> None:
        if start == 4:
            raise ValueError("row 4")

    with pytest.raises(ValueError, match="row 4"):
        map_rows(work, 6, 1, 1, CPU)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("level", ["highest", "high", "medium"])
def test_products_are_exact_and_the_setting_is_put_back(level):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(level)
        with torch.autocast("cpu", dtype=torch.bfloat16), exact_arithmetic(CPU):
            product = torch.full((2, 2), 1.0001) @ torch.eye(2)
        assert product.dtype == torch.float32
        assert float(product[0, 0]) == pytest.approx(1.0001, abs=1e-7)
        assert torch.get_float32_matmul_precision() == level
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("row_bytes", "rows"), [(100, 10), (5000, 1), (0, 12)])
def test_rows_of_a_chunk(row_bytes, rows):
    before, chunks = torch.get_num_threads(), []
    torch.set_num_threads(1)
    map_rows(lambda start, stop: chunks.append(stop - start), 12, row_bytes, 1000, CPU)
    torch.set_num_threads(before)
    assert chunks[0] == rows and sum(chunks) == 12


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
