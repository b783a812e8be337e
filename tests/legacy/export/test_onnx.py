"""One call that exports to ONNX."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from sparseml.pytorch.utils import ModuleExporter, export_onnx


@pytest.fixture
def asked(monkeypatch):
    """What the exporter is asked for."""
    found = {}

    def export(self, sample_batch, name, opset, disable_bn_fusing, convert_qat, **kwargs):
        found.update(folder=self.output_dir, name=name, opset=opset, **kwargs)
        return f"{self.output_dir}/{name}"

    monkeypatch.setattr(ModuleExporter, "export_onnx", export)
    return found


def test_where_it_goes(asked, tmp_path) -> None:
    path = export_onnx(nn.Linear(2, 2), torch.ones(2, 2), tmp_path / "new" / "net.onnx")
    assert path == str(tmp_path / "new" / "net.onnx")
    assert asked == {"folder": str(tmp_path / "new"), "name": "net.onnx", "opset": None}


def test_axes_and_opset(asked, tmp_path, caplog) -> None:
    axes = {"input": {0: "batch", 2: "height"}}
    with caplog.at_level(logging.WARNING):
        export_onnx(nn.Linear(2, 2), torch.ones(2, 2), tmp_path / "a.onnx", 14, dynamic_axes=axes)
    assert asked["dynamic_axes"] == axes and asked["dynamic_shapes"] is None
    assert asked["opset"] == 18 and "opset 18 or later, not 14" in caplog.text
    export_onnx(nn.Linear(2, 2), torch.ones(2, 2), tmp_path / "a.onnx", opset=20, verbose=True)
    assert asked["opset"] == 20 and asked["verbose"] is True


@pytest.mark.parametrize("flag", ["convert_qat", "skip_input_quantize"])
def test_what_it_does_not_do(flag, tmp_path) -> None:
    with pytest.raises(ValueError, match=f"{flag} is not supported"):
        export_onnx(nn.Linear(2, 2), torch.ones(2, 2), tmp_path / "a.onnx", **{flag: True})


def test_a_real_one(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    path = export_onnx(nn.Linear(3, 2), torch.ones(4, 3), tmp_path / "a.onnx")
    (given,) = onnx.load(path).graph.input
    assert given.name == "input" and given.type.tensor_type.shape.dim[1].dim_value == 3
