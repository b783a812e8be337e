from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sparseml.base import Framework
from sparseml.framework import (
    FrameworkInferenceProviderInfo,
    FrameworkInfo,
    framework_info,
    load_framework_info,
    save_framework_info,
)


def test_defaults() -> None:
    provider = FrameworkInferenceProviderInfo(name="cpu", description="a CPU", device="cpu")
    assert provider.model_dump() == {
        "name": "cpu",
        "description": "a CPU",
        "device": "cpu",
        "supported_sparsification": None,
        "available": False,
        "properties": {},
        "warnings": [],
    }
    info = FrameworkInfo(framework="onnx", package_versions={"onnx": None})
    assert info.framework is Framework.onnx
    assert not info.training_available and not info.inference_available
    assert not info.sparsification_available and not info.exporting_onnx_available
    with pytest.raises(ValidationError):
        FrameworkInfo(framework="nonsense", package_versions={})


def test_pytorch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import sparseml.pytorch

    info = framework_info("pytorch")
    assert info == framework_info(Framework.pytorch) == sparseml.pytorch.framework_info()
    assert {"torch", "torchvision", "onnx"} <= set(info.package_versions)
    assert [provider.device for provider in info.inference_providers] == ["cpu", "gpu"]
    path = tmp_path / "new" / "info.json"
    save_framework_info("pytorch", path)
    assert load_framework_info(str(path)) == info
    assert load_framework_info(path.read_text()) == info
    save_framework_info(info)
    assert load_framework_info(capsys.readouterr().out) == info


def test_names_of_pydantic_1_warn_of_nothing() -> None:
    info = FrameworkInfo(framework="onnx", package_versions={"onnx": None})
    assert info.json() == info.model_dump_json()
    assert info.json(indent=4) == info.model_dump_json(indent=4)
    assert FrameworkInfo.parse_raw(info.json()) == info


def test_unknown_frameworks() -> None:
    with pytest.raises(ValueError, match="no framework found"):
        framework_info("nonsense")
    with pytest.raises(ValueError, match="no framework found"):
        framework_info(Framework.unknown)
