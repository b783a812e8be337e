"""Many small images of one size in one file: a grid of tiles, row by row.

A folder holds ``train.webp`` and ``test.webp`` (any lossless format that Pillow reads), 100 tiles
high, and ``labels.npz`` with an array of labels for each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

CIFAR10_CLASSES = (
    "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
)
ROWS, SIZE = 100, 32


class ImageGrid(Dataset):
    """The images of a split, as PIL images put through ``transform``.

    :param folder: holds the grids
    :param split: ``train``, or ``test`` (also called ``validation``); ``train[a:b]`` and
        ``test[a:b]`` are the images from the a-th to before the b-th
    """

    def __init__(self, folder: str, split: str, classes: tuple[str, ...] | list[str]) -> None:
        name, _, part = split.partition("[")
        name = {"validation": "test", "val": "test"}.get(name, name)
        files = sorted(Path(folder).glob(f"{name}.*"))
        if not files:
            raise FileNotFoundError(f"no file {name}.webp in {folder}")
        with Image.open(files[0]) as image:
            pixels = np.asarray(image.convert("RGB"))
        tiles = pixels.reshape(ROWS, SIZE, -1, SIZE, 3).swapaxes(1, 2)
        chosen = _chosen(part)
        self.images = tiles.reshape(-1, SIZE, SIZE, 3)[chosen]
        self.labels = np.load(Path(folder) / "labels.npz")[name].astype(np.int64)[chosen]
        self.classes = list(classes)
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image: Any = Image.fromarray(self.images[index])
        if self.transform is not None:
            image = self.transform(image)
        return image, int(self.labels[index])


def _chosen(part: str) -> slice:
    if not part:
        return slice(None)
    begin, _, end = part.rstrip("]").partition(":")
    return slice(int(begin or 0), int(end) if end else None)


def cifar10(folder: str, split: str) -> ImageGrid:
    """CIFAR-10 as two grids of 32x32 pixels."""
    return ImageGrid(folder, split, CIFAR10_CLASSES)
