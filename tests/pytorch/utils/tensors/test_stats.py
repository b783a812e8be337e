from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from sparseml.pytorch.utils import (
    MEMORY_BOUNDED,
    mask_difference,
    memory_aware_threshold,
    tensor_density,
    tensor_list_sparsity,
    tensor_sample,
    tensor_sparsity,
)
from sparseml.pytorch.utils.tensors.stats import count_zeros

_ARRAYS = st_numpy.arrays(
    np.float32,
    st_numpy.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
    elements=st.sampled_from([0.0, -0.0, 1.0, -2.5]),
)
_DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool, torch.uint8]


@settings(deadline=None)
@given(_ARRAYS, st.data())
def test_sparsity_counts_zeros(array: np.ndarray, data: st.DataObject) -> None:
    tensor = torch.from_numpy(array)
    expected = float((array == 0).mean()) if array.size else 0.0
    assert float(tensor_sparsity(tensor)) == pytest.approx(expected)
    dims = data.draw(st.permutations(range(array.ndim)))[: data.draw(st.integers(1, array.ndim))]
    kept = tensor_sparsity(tensor, dims)
    assert kept.shape == tuple(array.shape[dim] for dim in dims)
    rest = tuple(dim for dim in range(array.ndim) if dim not in dims)
    if array.size:
        means = np.transpose((array == 0).mean(axis=rest, keepdims=True), [*dims, *rest])
        np.testing.assert_allclose(kept, means.reshape(kept.shape), rtol=1e-6)
    assert torch.equal(tensor_density(tensor, dims), 1 - kept)


def test_dims_keep_the_order_given() -> None:
    tensor = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 0.0]]])
    assert tensor_sparsity(tensor, [0, 1]).tolist() == [[1.0, 0.5], [0.0, 0.5]]
    assert tensor_sparsity(tensor, [1, 0]).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert tensor_sparsity(tensor, -1).tolist() == [0.5, 0.5]
    assert tensor_sparsity(tensor, 0).tolist() == [0.75, 0.25]


@pytest.mark.parametrize("dtype", _DTYPES)
def test_sparsity_of_every_dtype(dtype: torch.dtype) -> None:
    sparsity = tensor_sparsity(torch.tensor([0, 1, 0, 1, 1]).to(dtype))
    assert sparsity.dtype == torch.float32
    assert float(sparsity) == pytest.approx(0.4)


def test_big_tensors_are_counted_exactly() -> None:
    tensor = torch.zeros(2**25 + 1, dtype=torch.bool)
    tensor[0] = True
    assert count_zeros(tensor) == 2**25  # float32 counts would stop at 2**24
    assert tensor_list_sparsity([tensor]) == 2**25 / (2**25 + 1)


def test_nan_and_inf_are_no_zeros() -> None:
    assert float(tensor_sparsity(torch.tensor([float("nan"), float("inf"), 0.0, -0.0]))) == 0.5


def test_bad_dims() -> None:
    tensor = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="dim 2 is out of range for a tensor of 2"):
        tensor_sparsity(tensor, 2)
    with pytest.raises(ValueError, match="dim -3"):
        tensor_sparsity(tensor, [0, -3])
    with pytest.raises(ValueError, match="twice"):
        tensor_sparsity(tensor, [0, -2])


def test_meta_tensors_have_no_values() -> None:
    meta = torch.zeros(3, device="meta")
    with pytest.raises(ValueError, match=r"meta device has no values \(shape \(3,\)\)"):
        tensor_sparsity(meta)
    with pytest.raises(ValueError, match="meta"):
        tensor_list_sparsity([meta])


def test_list_sparsity_weighs_by_size() -> None:
    tensors = [torch.zeros(3), torch.ones(1), torch.empty(0), torch.ones(4, dtype=torch.float16)]
    assert tensor_list_sparsity(tensors) == 3 / 8
    assert tensor_list_sparsity([]) == 0.0
    assert tensor_list_sparsity(iter([torch.zeros(2)])) == 1.0


def test_sample_draws_from_the_right_slices() -> None:
    tensor = torch.arange(24.0).reshape(2, 3, 4)
    generator = torch.Generator().manual_seed(0)
    assert set(tensor_sample(tensor, 50, generator=generator).tolist()) <= set(range(24))
    sample = tensor_sample(tensor, 7, dim=[1, 0], generator=generator)
    assert sample.shape == (3, 2, 7)
    for row in range(3):
        for column in range(2):
            assert set(sample[row, column].tolist()) <= set(tensor[column, row].tolist())
    again = tensor_sample(tensor, 7, dim=1, generator=torch.Generator().manual_seed(3))
    same = tensor_sample(tensor, 7, dim=1, generator=torch.Generator().manual_seed(3))
    assert again.shape == (3, 7)
    assert torch.equal(again, same)


def test_sample_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="sample_size must be at least 1, found 0"):
        tensor_sample(torch.ones(3), 0)
    with pytest.raises(ValueError, match="empty tensor"):
        tensor_sample(torch.ones(0, 3), 1)


@pytest.mark.parametrize("dtype", _DTYPES)
def test_mask_difference(dtype: torch.dtype) -> None:
    old = torch.tensor([0, 0, 1, 1]).to(dtype)
    new = torch.tensor([0, 1, 0, 1]).to(dtype)
    assert mask_difference(old, new).tolist() == [0, 1, -1, 0]


@pytest.mark.parametrize("bounded", ["", "true", "True", "false"])
@settings(deadline=None, max_examples=25)
@given(values=st.lists(st.integers(-5, 5), min_size=1, max_size=20), data=st.data())
def test_threshold_is_the_sorted_value(
    bounded: str, values: list[int], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(values) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MEMORY_BOUNDED, bounded)
        threshold = memory_aware_threshold(torch.tensor(values, dtype=torch.float32), index)
    assert threshold.ndim == 0
    assert float(threshold) == sorted(values)[index]


def test_threshold_falls_back_when_sorting_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.Tensor, "sort", fail)
    assert float(memory_aware_threshold(torch.tensor([[3.0, 1.0], [2.0, 0.0]]), 2)) == 2.0


def test_threshold_index_out_of_range() -> None:
    with pytest.raises(IndexError, match="index 3 is out of range for a tensor of 3"):
        memory_aware_threshold(torch.ones(3), 3)
    with pytest.raises(IndexError, match="of 0 values"):
        memory_aware_threshold(torch.ones(0), 0)
