from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.kernels import exact_arithmetic, map_rows
from sparseml.pytorch.functional.kernels.rows import rows_per_chunk

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

    map_rows(work, rows, chunk, CPU)
    assert seen.tolist() == [1] * rows
    assert torch.get_num_threads() == threads


def test_one_blas_thread_in_each_of_several(threads):
    used: list[int] = []
    map_rows(lambda *_: used.append(torch.get_num_threads()), 9, 1, CPU)
    assert used == [1] * 9


def test_errors_arrive_and_settings_are_put_back(threads):
    def work(start: int, stop: int) -> None:
        if start == 4:
            raise ValueError("row 4")

    with pytest.raises(ValueError, match="row 4"):
        map_rows(work, 6, 1, CPU)
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


def test_rows_per_chunk():
    assert rows_per_chunk(100, 1000) == 10
    assert rows_per_chunk(5000, 1000) == 1
    assert rows_per_chunk(0, 1000) == 1000
