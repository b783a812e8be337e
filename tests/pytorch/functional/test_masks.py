from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.masks import (
    apply_masks,
    pack_mask,
    unpack_mask,
)


def test_apply_masks_multiplies_in_place_across_dtypes():
    generator = torch.Generator().manual_seed(0)
    dtypes = [torch.float32, torch.float64, torch.float16, torch.float32, torch.bfloat16]
    tensors = [torch.randn(3, 4, generator=generator).to(dtype) for dtype in dtypes]
    masks = [torch.randint(0, 2, (3, 4), generator=generator).to(d) for d in dtypes]
    expected = [tensor * mask for tensor, mask in zip(tensors, masks, strict=True)]
    pointers = [tensor.data_ptr() for tensor in tensors]
    apply_masks(tensors, masks)
    assert all(torch.equal(a, b) for a, b in zip(tensors, expected, strict=True))
    assert [tensor.data_ptr() for tensor in tensors] == pointers


def test_apply_masks_works_on_leaf_parameters_and_bool_masks():
    weight = torch.nn.Parameter(torch.ones(4))
    apply_masks([weight], [torch.tensor([True, False, True, False])])
    assert weight.tolist() == [1, 0, 1, 0]
    assert weight.requires_grad
    assert weight.grad_fn is None


def test_apply_masks_leaves_plain_zeros_if_asked():
    weight, mask = torch.tensor([-1.5, 2.0, -3.0]), torch.tensor([0.0, 0.0, 1.0])
    as_it_comes = weight.clone()
    apply_masks([as_it_comes], [mask])
    assert torch.signbit(as_it_comes).tolist() == [True, False, True]
    apply_masks([weight], [mask], plain_zeros=True)
    assert torch.signbit(weight).tolist() == [False, False, True]
    assert weight.tolist() == [0.0, 0.0, -3.0]


def test_apply_masks_without_tensors_does_nothing():
    apply_masks([], [])


def test_apply_masks_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="2 tensors but 1 masks"):
        apply_masks([torch.ones(2), torch.ones(2)], [torch.ones(2)])
    # a mask of one row would silently broadcast
    with pytest.raises(ValueError, match=r"mask 0 has shape \(3,\), its tensor \(2, 3\)"):
        apply_masks([torch.ones(2, 3)], [torch.ones(3)])


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.bool, torch.float32, torch.float16, torch.int8]),
)
def test_packing_round_trips(shape, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 2, shape, generator=generator).to(dtype)
    packed, packed_shape = pack_mask(mask)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-mask.numel() // 8)
    back = unpack_mask(packed, packed_shape, dtype)
    assert back.dtype == dtype
    assert torch.equal(back, mask)


def test_packing_starts_with_the_lowest_bit():
    mask = torch.tensor([1, 0, 0, 0, 0, 0, 0, 1, 0, 1])
    assert pack_mask(mask)[0].tolist() == [0b1000_0001, 0b10]


def test_packing_refuses_other_values_and_lengths():
    with pytest.raises(ValueError, match="only 0 and 1"):
        pack_mask(torch.tensor([0.0, 0.5]))
    with pytest.raises(ValueError, match=r"shape \(9,\) is uint8 of 2 bytes"):
        unpack_mask(torch.zeros(1, dtype=torch.uint8), (9,))
    with pytest.raises(ValueError, match=r"found torch\.int64"):
        unpack_mask(torch.zeros(2, dtype=torch.int64), (9,))
