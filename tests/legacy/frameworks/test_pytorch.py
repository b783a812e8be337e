from __future__ import annotations

from typing import Any

import pytest
import torch

from sparseml.base import Framework
from sparseml.framework import FrameworkInfo
from sparseml.framework import framework_info as neutral_framework_info
from sparseml.pytorch import detect_framework, framework_info, is_supported


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (Framework.pytorch, Framework.pytorch),
        (Framework.onnx, Framework.onnx),
        ("PyTorch", Framework.pytorch),
        ("onnx", Framework.onnx),
        ("folder/model.pt", Framework.pytorch),
        ("folder/model.pth", Framework.pytorch),
        ("model.mar", Framework.pytorch),
        ("torchvision", Framework.pytorch),
        (torch.nn.ReLU(), Framework.pytorch),
        ("model.h5", Framework.unknown),
        (None, Framework.unknown),
        (torch.nn.ReLU, Framework.unknown),
    ],
)
def test_detection(item: Any, expected: Framework) -> None:
    assert detect_framework(item) is expected
    assert is_supported(item) is (expected is Framework.pytorch)


def test_info() -> None:
    info = framework_info()
    assert info == neutral_framework_info(Framework.pytorch)
    assert info.framework is Framework.pytorch
    assert info.package_versions["torch"] == torch.__version__.split("+")[0]
    assert {"torch", "torchvision", "onnx"} <= set(info.package_versions)
    assert info.sparsification
    assert [(p.name, p.device) for p in info.inference_providers] == [
        ("cpu", "cpu"),
        ("cuda", "gpu"),
    ]
    assert info.inference_providers[0].available
    assert info.inference_providers[1].available is torch.cuda.is_available()
    flags = ("training", "sparsification", "exporting_onnx", "inference")
    assert all(getattr(info, f"{flag}_available") for flag in flags)
    assert FrameworkInfo.model_validate_json(info.model_dump_json()) == info
