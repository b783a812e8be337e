"""2:4 on CUDA: what can be told and measured without it, and the conversion where it is."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.functional import linear, unfold
from torch.nn.utils import parametrize

from sparseml.pytorch.functional.patterns import NM
from sparseml.pytorch.utils.tensors.semi_structured import (
    Conversion,
    LayerTiming,
    convert_semi_structured,
    time_semi_structured,
    unfit_for_semi_structured,
)


def _pruned(
    outputs: int, inputs: int, kept: int = 2, dtype: torch.dtype = torch.float16
) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        groups = layer.weight.view(-1, 4)
        groups[torch.arange(4).expand_as(groups) >= kept] = 0
    return layer.to(dtype)


@pytest.mark.parametrize("kept", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pruned_layers_fit(kept: int, dtype: torch.dtype) -> None:
    assert unfit_for_semi_structured(_pruned(64, 128, kept, dtype)) == ""


def test_layers_that_do_not_fit_say_why() -> None:
    one_more = _pruned(64, 64)
    with torch.no_grad():
        one_more.weight[3, :3] = 1
    assert unfit_for_semi_structured(one_more) == (
        "0.1% of its groups of four have more than two weights"
    )
    assert unfit_for_semi_structured(_pruned(64, 64, 4)).startswith("100.0% of its groups")
    # four kept of eight is no 2:4
    assert unfit_for_semi_structured(_pruned(64, 64, dtype=torch.float32)) == (
        "its weight is float32; kernels take float16 or bfloat16"
    )
    assert unfit_for_semi_structured(_pruned(64, 64, dtype=torch.float32), torch.float16) == ""
    assert unfit_for_semi_structured(_pruned(24, 64)) == (
        "its weight has shape (24, 64); kernels take multiples of (16, 16)"
    )
    computed = _pruned(64, 64)
    parametrize.register_parametrization(computed, "weight", nn.Identity())
    assert unfit_for_semi_structured(computed).startswith("it is a ParametrizedLinear")


def test_kernels_without_cusparselt_need_larger_multiples() -> None:
    layer = _pruned(48, 48)
    assert unfit_for_semi_structured(layer) == ""
    assert unfit_for_semi_structured(layer, cusparselt=False) == (
        "its weight has shape (48, 48); kernels take multiples of (32, 64)"
    )


def test_the_cpu_is_one_clear_message() -> None:
    message = (
        "2:4 kernels need an NVIDIA GPU of compute capability 8.0 or higher, and the model is on "
        "'cpu'; a 2:4 pruned model runs here as it is, at the speed of a dense one"
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        convert_semi_structured(nn.Sequential(_pruned(64, 64)), torch.randn(2, 64))


def test_layers_are_timed_on_the_rows_that_they_see() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.unused = (_pruned(64, 64, dtype=torch.float32) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(self.inner(x)[:, :3])

    converted = []

    def convert(weight: torch.Tensor) -> torch.Tensor:
        converted.append(weight)
        return weight

    model = Twice().train()
    found = time_semi_structured(model, ["inner", "unused"], torch.randn(2, 7, 64), 3, convert)
    assert list(found) == ["inner"]
    assert found["inner"].rows == (14, 6)
    assert found["inner"].dense_ms > 0
    assert found["inner"].sparse_ms > 0
    assert torch.equal(converted[0], model.inner.weight)
    assert len(converted) == 1
    assert model.training
    assert not model.inner._forward_pre_hooks


def test_result_says_plainly_what_loses() -> None:
    won, lost = LayerTiming("up", (64,), 0.3, 0.2), LayerTiming("down", (64,), 0.2, 0.25)
    text = str(
        Conversion(("up", "down"), {"head": "its weight is float32"}, {"up": won, "down": lost})
    )
    assert text.splitlines() == [
        "2 of 3 layers are 2:4",
        "up: converted, faster for 64 rows: 0.200 ms against 0.300 (x1.50)",
        "down: converted, SLOWER for 64 rows: 0.250 ms against 0.200 (x0.80)",
        "head: left, its weight is float32",
    ]


def _has_kernels() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


@pytest.mark.skipif(not _has_kernels(), reason="needs CUDA, compute capability 8.0 or higher")
@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_conversion_computes_the_same(dtype: torch.dtype) -> None:
    model = nn.Sequential(_pruned(256, 128), nn.GELU(), _pruned(128, 256), nn.Linear(128, 3))
    model = model.to("cuda", dtype).eval()
    inputs = torch.randn(4, 16, 128, device="cuda", dtype=dtype)
    with torch.inference_mode():
        before = model(inputs)
        done = convert_semi_structured(model, inputs, only_faster=False, rounds=5)
        after = model(inputs)
    assert done.converted == ("0", "2")
    assert list(done.left) == ["3"]
    assert set(done.timings) == {"0", "2"}
    torch.testing.assert_close(before, after, rtol=2e-2, atol=2e-2)


@pytest.mark.skipif(not _has_kernels(), reason="needs CUDA, compute capability 8.0 or higher")
@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor:UserWarning")
def test_only_layers_that_win_are_converted() -> None:
    model = nn.Sequential(_pruned(256, 128), _pruned(128, 256)).cuda().eval()
    done = convert_semi_structured(model, torch.randn(8, 128, device="cuda").half(), rounds=5)
    for name, timing in done.timings.items():
        assert (name in done.converted) == (timing.speedup > 1)


def test_a_convolution_in_the_pattern_is_a_matrix_in_channels_last_order() -> None:
    """As ``docs/second_order.md`` says, on a strided, padded and dilated one."""
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 6, 3, stride=2, padding=1, dilation=2)
    pattern = NM(2, 4)
    scores = conv.weight.detach().abs()
    (mask,) = pattern.masks([torch.zeros(6, 3, 3, 2, dtype=torch.bool)], [scores])
    conv.weight.data *= mask
    matrix = conv.weight.permute(0, 2, 3, 1).reshape(conv.out_channels, -1)
    assert ((matrix.reshape(-1, 4) != 0).sum(1) == 2).all()
    assert ((conv.weight.flatten(1).reshape(-1, 4) != 0).sum(1) > 2).any()
    images = torch.randn(2, 8, 9, 7)
    patches = unfold(images, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    patches = patches.unflatten(1, (conv.in_channels, -1)).permute(0, 3, 2, 1).flatten(2)
    outputs = linear(patches, matrix, conv.bias)
    expected = conv(images)
    torch.testing.assert_close(outputs, expected.flatten(2).transpose(1, 2))
