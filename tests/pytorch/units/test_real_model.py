"""A trained MobileNetV2 on photographs, if the data folder is there."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import LayerThinningModifier, StructuredPruningModifier
from sparseml.pytorch.units import dependency_groups

_BESIDE = Path(__file__).parents[4] / "shared" / "data"
DATA = Path(os.environ.get("SPARSEML_DATA", _BESIDE))
WEIGHTS = DATA / "weights" / "imagenet_mobilenetv2_100.safetensors"
IMAGES = DATA / "imagenet_val1000" / "val.zip"

pytestmark = pytest.mark.skipif(
    not (WEIGHTS.is_file() and IMAGES.is_file()),
    reason=f"needs {WEIGHTS.name} and {IMAGES.name} in the data folder (SPARSEML_DATA)",
)


@pytest.fixture(scope="module")
def photographs() -> tuple[Tensor, Tensor]:
    """32 images ``[32, 3, 224, 224]`` in [-1, 1], and their classes."""
    images = pytest.importorskip("PIL.Image")
    with zipfile.ZipFile(IMAGES) as archive:
        names = archive.namelist()
        folders = sorted({Path(name).parent.name for name in names if "/n" in name} | {
            Path(name).name for name in names if name.endswith("/") and Path(name).name[0] == "n"
        })  # fmt: skip
        chosen = [name for name in names if name.endswith(".JPEG")][::30][:32]
        arrays = [
            np.asarray(images.open(io.BytesIO(archive.read(name))).convert("RGB"))[1:225, 1:225]
            for name in chosen
        ]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float()
    labels = torch.tensor([folders.index(Path(name).parent.name) for name in chosen])
    return pixels / 127.5 - 1, labels


@pytest.fixture
def model() -> nn.Module:
    model = timm.create_model("mobilenetv2_100", pad_type="same")
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


@pytest.mark.parametrize("structure_type", ["filter", "channel"])
def test_a_trained_model_shrinks_without_a_change(
    model: nn.Module, photographs: tuple[Tensor, Tensor], structure_type: str
) -> None:
    images, labels = photographs
    with torch.no_grad():
        assert (model(images).argmax(dim=1) == labels).float().mean() > 0.65
    found = dependency_groups(model, images[:1], structure_type)
    assert len(found.groups) == 25
    pruner = StructuredPruningModifier(
        0.0, 0.3, 0.0, 1.0, 1.0,
        params=found.params, param_groups=found.param_groups, mask_type=structure_type,
    )  # fmt: skip
    ScheduledModifierManager([pruner]).apply(model)
    size = sum(param.numel() for param in model.parameters())
    with torch.no_grad():
        before = model(images)
    thinner = LayerThinningModifier(found.param_group_dependency_map, structure_type)
    ScheduledModifierManager([thinner]).apply(model)
    with torch.no_grad():
        after = model(images)
    assert (after - before).abs().max() < 1e-4
    assert before.std() > 0.1  # it has not simply died
    assert sum(param.numel() for param in model.parameters()) < 0.65 * size
