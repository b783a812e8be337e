"""The launch scripts, and the models and data sets of ``research``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sparseml.timm import DataSource, Processes, class_count, evaluate, load_model

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SPARSEML_DATA", ROOT.parent / "shared" / "data"))
WEIGHTS = {
    "research.models.cifar_resnet:resnet20": ("cifar10_resnet20", 0.917),
    "research.models.small_vit:small_vit": ("cifar10_vit_d4_w128", 0.719),
}


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("run_one_shot_pruning.sh", ["one_shot_pruning.py", "--sparsities 0.5 0.6"]),
        ("run_gradual_pruning.sh", ["sparse_training.py", "--recipe-args {}", "--amp"]),
    ],
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_launchers_call_their_scripts(
    tmp_path: Path, script: str, expected: list[str], processes: str
) -> None:
    for name in ("python", "torchrun"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "DATA_DIR": "/images",
        "SPARSITIES": "0.5 0.6",
        "PROCESSES": processes,
    }
    command = [str(ROOT / "research" / script), "--seed", "7"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("python" if processes == "1" else "torchrun --standalone")
    for text in [*expected, "--data-dir /images", "--seed 7", "/cap/vit.yaml"]:
        assert text in done.stdout
    recipe = next(word for word in done.stdout.split() if word.startswith("recipes/"))
    assert (ROOT / recipe).is_file()
    del environment["DATA_DIR"]
    failed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert failed.returncode != 0 and "DATA_DIR: set it to the folder" in failed.stderr


def test_images_in_a_grid(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3)).astype(np.uint8)
    grid = pixels.reshape(100, 3, 32, 32, 3).swapaxes(1, 2).reshape(3200, 96, 3)
    Image.fromarray(grid).save(tmp_path / "train.png")
    np.savez(tmp_path / "labels.npz", train=np.arange(300) % 10)
    name = "research.images.image_grid:cifar10"
    config = {"input_size": (3, 32, 32), "interpolation": "bilinear", "crop_pct": 1.0}
    config |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    source = DataSource(name, str(tmp_path), config)
    dataset = source.dataset("train[10:40]")
    assert len(dataset) == 30 and class_count(dataset) == 10
    images, labels = next(iter(source.loader(dataset, 30, Processes())))
    expected = torch.from_numpy(pixels[10:40]).permute(0, 3, 1, 2) / 255
    assert torch.equal(images, expected) and labels.tolist() == [n % 10 for n in range(10, 40)]


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_trained_weights_are_as_good_as_they_should_be(name: str) -> None:
    file, accuracy = WEIGHTS[name]
    weights = DATA / "weights" / f"{file}.safetensors"
    if not weights.exists():
        pytest.skip(f"no {weights}: set SPARSEML_DATA to the folder of data")
    model = load_model(name, str(weights))
    assert sum(p.numel() for p in model.parameters()) == sum(
        value.numel() for key, value in load_file(weights).items() if _is_parameter(key)
    )
    config: dict[str, Any] = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    source = DataSource("research.images.image_grid:cifar10", str(DATA / "cifar10"), config)
    loader = source.loader(source.dataset("test[:1000]"), 250, Processes())
    assert evaluate(model, loader, Processes())["top1"] == pytest.approx(accuracy, abs=0.03)


def _is_parameter(key: str) -> bool:
    return not key.endswith(("running_mean", "running_var", "num_batches_tracked"))
