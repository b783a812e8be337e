"""A folder of small images, a small network for them, and recipes."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
RESEARCH = ROOT / "research"
CLASSES = ("ant", "bee", "cow")
PER_CLASS = {"train": 16, "val": 7}

OWN_CODE = '''
from torch import nn


class Small(nn.Module):
    """Two convolutions and a linear layer for images of 8x8 pixels."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.num_classes = num_classes
        self.pretrained_cfg = {
            "input_size": (3, 8, 8), "crop_pct": 1.0, "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
        }
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Dropout(0.1), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        )
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))


def small(**kwargs):
    return Small(**kwargs)


not_a_model = 3
'''

GRADUAL = """
sparsity: 0.8
epochs: 4
training_modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: eval(epochs)}
pruning_modifiers:
  - !GlobalMagnitudePruningModifier
      params: ['re:body.*weight']
      init_sparsity: 0.2
      final_sparsity: eval(sparsity)
      start_epoch: 0
      end_epoch: eval(epochs - 1)
      update_frequency: 0.5
"""

Script = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let timm leave the files of images to the garbage collector."""
    open_files = pytest.mark.filterwarnings(
        "ignore:unclosed file:ResourceWarning",
        "ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning",
    )
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(open_files)


def make_images(folder: Path, classes: tuple[str, ...] = CLASSES, size: int = 10) -> Path:
    """Images of one colour a class, with noise, as ``<folder>/<split>/<class>/<number>.png``."""
    generator = np.random.default_rng(0)
    for split, count in PER_CLASS.items():
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 150, (size, size, 3))
                pixels[..., number % 3] += 80
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / split / name / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images with the splits ``train`` and ``val``."""
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with ``own_code.py`` and a gradual recipe."""
    (tmp_path / "own_code.py").write_text(OWN_CODE)
    (tmp_path / "gradual.yaml").write_text(GRADUAL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def command(script: str, *flags: Any, processes: int = 1) -> list[str]:
    """The command line of a script in ``research``."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*start, str(RESEARCH / script), *map(str, flags)]


@pytest.fixture
def flags(images: Path) -> list[Any]:
    """Flags for the small network on the small images, with a folder ``out`` for the run."""
    flags = ["--model", "own_code:small", "--data-dir", images, "--val-split", "val"]
    flags += ["--device", "cpu", "--workers", 0, "--threads", 1, "--no-report"]
    return [*flags, "--output", "out", "--experiment", "run"]


class Called(NamedTuple):
    """What a script did when its ``main`` was called in this process."""

    status: int
    out: str
    error: str


@pytest.fixture
def call(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Called]:
    """Call a script of ``research`` in this process, which is much faster than starting one.

    It must succeed unless it ``fails``; with None it may do either.
    """

    def call(script: str, *flags: Any, fails: bool | None = False) -> Called:
        spec = importlib.util.spec_from_file_location(script[:-3], RESEARCH / script)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [script, *map(str, flags)])
        monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
        status = module.main()
        done = Called(status, *capsys.readouterr())
        assert fails is None or (status != 0) == fails, done.out + done.error
        return done

    return call


@pytest.fixture
def start(workplace: Path, warm: None) -> Callable[..., subprocess.Popen[str]]:
    """Start a script in the workplace, in as many processes as given."""

    def start(script: str, *flags: Any, processes: int = 1) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(script, *flags, processes=processes),
            cwd=workplace,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture
def run(start: Callable[..., subprocess.Popen[str]]) -> Script:
    """Run a script to its end and return its output; it must succeed unless it ``fails``."""

    def run(script: str, *flags: Any, processes: int = 1, fails: bool = False) -> str:
        process = start(script, *flags, processes=processes)
        try:
            output = process.communicate(timeout=240)[0]
        finally:
            process.kill()
        assert (process.returncode != 0) == fails, output
        return output

    return run
