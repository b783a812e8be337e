"""Attention in a form that torch's ONNX exporter takes gives what it gives otherwise."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from sparseml.pytorch.utils.tensors.attention import FourDimensionalAttention


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 4), (2, 1, 3, 4)])
@pytest.mark.parametrize("mask", [None, (), "lead"])
@pytest.mark.parametrize("causal", [False, True])
def test_any_number_of_dimensions(
    lead: tuple[int, ...], mask: str | tuple[()] | None, causal: bool
) -> None:
    if causal and mask is not None:
        return  # torch takes one of both
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(*lead, length, width, generator=generator)
        for length, width in ((5, 8), (6, 8), (6, 3))
    )
    shape = lead if mask == "lead" else ()
    bias = None if mask is None else torch.randn(*shape, 5, 6, generator=generator)
    expected = scaled_dot_product_attention(query, key, value, bias, 0.0, causal, scale=0.3)
    with FourDimensionalAttention():
        found = scaled_dot_product_attention(query, key, value, bias, 0.0, causal, scale=0.3)
    torch.testing.assert_close(found, expected)
