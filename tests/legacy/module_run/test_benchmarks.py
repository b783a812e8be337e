from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.utils import BatchBenchmarkResults, ModuleBenchmarker


def test_results() -> None:
    results = BatchBenchmarkResults(4)
    assert results.model_batch_seconds == results.e2e_items_per_second == 0.0
    results.add(1.0, 2.0, 4)
    results.add(3.0, 6.0, 4)
    assert results.batch_size == 4
    assert results.model_batch_timings == [1.0, 3.0]
    assert results.e2e_batch_timings == [2.0, 6.0]
    assert (results.model_batch_seconds, results.e2e_batch_seconds) == (2.0, 4.0)
    assert (results.model_batches_per_second, results.e2e_batches_per_second) == (0.5, 0.25)
    assert (results.model_item_seconds, results.e2e_item_seconds) == (0.5, 1.0)
    assert (results.model_items_per_second, results.e2e_items_per_second) == (2.0, 1.0)
    with pytest.raises(ValueError, match="batch_size must be 4, found 3"):
        results.add(1.0, 1.0, 3)


def test_measuring() -> None:
    shapes: list[tuple[int, ...]] = []

    class Model(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shapes.append(tuple(x.shape))
            assert not torch.is_grad_enabled()
            return super().forward(x)

    model = Model(3, 2)
    batches = [(torch.zeros(5, 3), torch.zeros(5))] * 2
    results = ModuleBenchmarker(model).run_batches_on_device(
        batches, "cpu", test_size=5, warmup_size=2
    )
    assert shapes == [(5, 3)] * 7
    assert len(results.model_batch_timings) == 5
    assert all(
        0 < model_sec <= e2e_sec
        for model_sec, e2e_sec in zip(
            results.model_batch_timings, results.e2e_batch_timings, strict=True
        )
    )
    assert results.batch_size == 5
    assert not model.training


def test_half_precision() -> None:
    results = ModuleBenchmarker(nn.Linear(3, 2)).run_batches_on_device(
        [torch.zeros(1, 3)], "cpu", full_precision=False, test_size=1, warmup_size=0
    )
    assert len(results.e2e_batch_timings) == 1


def test_bad_input() -> None:
    benchmarker = ModuleBenchmarker(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="at least one batch"):
        benchmarker.run_batches_on_device([], "cpu")
    with pytest.raises(ValueError, match="nowhere"):
        benchmarker.run_batches_on_device([torch.zeros(1, 3)], "nowhere")
