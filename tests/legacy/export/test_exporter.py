from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparseml.pytorch.utils import CheckpointError, ModuleExporter, load_epoch, load_model


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_a_copy_is_exported(tmp_path: Path) -> None:
    model = _net().train()
    exporter = ModuleExporter(nn.DataParallel(model), tmp_path / "out")
    assert type(exporter.module) is nn.Sequential
    assert exporter.module is not model
    assert not exporter.module.training
    assert model.training
    assert exporter.output_dir == str(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pytorch(tmp_path: Path) -> None:
    model, other = _net(), _net()
    exporter = ModuleExporter(model, tmp_path)
    path = exporter.export_pytorch(epoch=3, name="weights.pth")
    assert path == str(tmp_path / "training" / "weights.pth")
    load_model(path, other, strict=True)
    assert torch.equal(model[0].weight, other[0].weight)
    assert load_epoch(path) == 3
    whole = exporter.export_pytorch(export_entire_model=True)
    with pytest.raises(CheckpointError, match="pickled classes"):
        load_model(whole, other)


def _content(path: Path) -> np.ndarray:
    with np.load(path) as arrays:
        return arrays["arr_0"]


def test_samples(tmp_path: Path) -> None:
    model = _net().eval()
    batches = [torch.randn(2, 3), torch.randn(1, 3)]
    labels = [torch.tensor([0, 1]), torch.tensor([1])]
    ModuleExporter(model, tmp_path).export_samples(batches, labels, batches, exp_counter=5)
    names = {
        folder.name: sorted(path.name for path in folder.iterdir()) for folder in tmp_path.iterdir()
    }
    assert names == {
        "sample-inputs": ["inp-0005.npz", "inp-0006.npz", "inp-0007.npz"],
        "sample-outputs": ["out-0005.npz", "out-0006.npz", "out-0007.npz"],
        "sample-labels": ["lab-0005.npz", "lab-0006.npz", "lab-0007.npz"],
        "sample_originals": ["org-0005.npz", "org-0006.npz", "org-0007.npz"],
    }
    for index, row in enumerate(torch.cat(batches)):
        sample = torch.from_numpy(_content(tmp_path / "sample-inputs" / f"inp-000{index + 5}.npz"))
        assert torch.equal(sample, row)
        output = torch.from_numpy(_content(tmp_path / "sample-outputs" / f"out-000{index + 5}.npz"))
        assert torch.allclose(output, model(row[None])[0], atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(tmp_path: Path) -> None:
    model, x = _net().eval(), torch.randn(2, 3)
    exporter = ModuleExporter(model, tmp_path)
    for path in (exporter.export_torchscript(), exporter.export_torchscript("t.pts", x)):
        assert Path(path).parent == tmp_path / "framework"
        assert torch.allclose(torch.jit.load(path)(x), model(x))


def test_deployment_folder(tmp_path: Path) -> None:
    exporter = ModuleExporter(_net(), tmp_path)
    with pytest.raises(FileNotFoundError, match="call export_onnx first"):
        exporter.create_deployment_folder()
    (tmp_path / "net.onnx").write_bytes(b"graph")
    folder = Path(exporter.create_deployment_folder({0: "cat"}, onnx_model_name="net.onnx"))
    assert (folder / "model.onnx").read_bytes() == b"graph"
    config = json.loads((folder / "config.json").read_text())
    assert config == {"labels_to_class_mapping": {"0": "cat"}}
    (tmp_path / "labels.json").write_text('{"0": "dog"}')
    exporter.create_deployment_folder(tmp_path / "labels.json", onnx_model_name="net.onnx")
    assert "dog" in (folder / "config.json").read_text()


def test_onnx_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs onnx and onnxscript: pip install onnx onnxscript"):
        ModuleExporter(_net(), tmp_path).export_onnx(torch.randn(2, 3))
    with pytest.raises(ValueError, match="convert_qat"):
        ModuleExporter(_net(), tmp_path).export_onnx(torch.randn(2, 3), convert_qat=True)
    assert list(tmp_path.iterdir()) == []


class _Two(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return left + right, left * right


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("module", "batch", "inputs", "outputs"),
    [
        (_net(), torch.randn(2, 3), ["input"], ["output"]),
        (_Two(), [torch.randn(2, 3)] * 2, ["input_0", "input_1"], ["output_0", "output_1"]),
        (
            _Two(),
            {"left": torch.randn(2, 3), "right": torch.randn(2, 3)},
            ["left", "right"],
            ["output_0", "output_1"],
        ),
        (_net(), torch.randn(1, 3), ["input"], ["output"]),  # a batch of one is dynamic too
        (
            _Two(),
            {"left": torch.randn(1, 3), "right": torch.randn(1, 3)},
            ["left", "right"],
            ["output_0", "output_1"],
        ),
    ],
)
def test_onnx(tmp_path: Path, module: Any, batch: Any, inputs: Any, outputs: Any) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    path = ModuleExporter(module, tmp_path).export_onnx(batch)
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]
    graph = onnx.load(path).graph
    onnx.checker.check_model(path)
    assert [item.name for item in graph.input] == inputs
    assert [item.name for item in graph.output] == outputs
    assert all(item.type.tensor_type.shape.dim[0].dim_param for item in graph.input)


def test_a_batch_of_one_is_exported_as_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def export(_module: Any, args: Any, path: str, **settings: Any) -> None:
        Path(path).touch()
        calls.append((args, settings["kwargs"], settings["dynamic_shapes"]))

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.onnx, "export", export)
    exporter, x = ModuleExporter(_net(), tmp_path), torch.randn(1, 3)
    exporter.export_onnx(x)
    exporter.export_onnx(x, dynamic_shapes=None)
    exporter.export_onnx(torch.cat([x, x, x]))
    assert [(len(args[0]), shapes) for args, _, shapes in calls] == [
        (2, ({0: "batch"},)), (1, None), (3, ({0: "batch"},)),
    ]  # fmt: skip
    ModuleExporter(_Two(), tmp_path).export_onnx({"left": x, "right": x})
    assert {name: len(value) for name, value in calls[-1][1].items()} == {"left": 2, "right": 2}


@pytest.mark.filterwarnings("ignore")
def test_onnx_with_a_fixed_batch_on_request(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    path = ModuleExporter(_net(), tmp_path).export_onnx(torch.randn(1, 3), dynamic_shapes=None)
    first = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0]
    assert first.dim_value == 1
