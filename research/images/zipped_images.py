"""Images in a zip file, in a folder per class, a few of them set apart for calibration."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

CALIBRATION = (0, 1)  # of each five images, in the order of their names
OF = 5


class ZippedImages(Dataset[Any]):
    """Some of the images of ``val.zip``, as PIL images put through ``transform``.

    They are read into memory as they are, and decoded when asked for. Folders without images are
    classes, too.

    :param folder: holds ``val.zip``, in it ``val/<class>/<image>``
    :param remainders: which images: those whose place, in the order of their names without their
        folders, leaves one of these remainders when divided by five
    :raises FileNotFoundError: if there is no such file
    """

    def __init__(self, folder: str, remainders: Sequence[int]) -> None:
        with zipfile.ZipFile(Path(folder) / "val.zip") as file:
            paths = [PurePosixPath(name) for name in file.namelist()]
            parents = {path.parts[1] for path in paths if len(path.parts) > 1}
            self.classes = sorted(parents)
            images = sorted((path for path in paths if path.suffix), key=lambda path: path.name)
            chosen = [path for place, path in enumerate(images) if place % OF in remainders]
            self._files = [file.read(str(path)) for path in chosen]
        number = {name: index for index, name in enumerate(self.classes)}
        self.labels = [number[path.parts[1]] for path in chosen]
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image: Any = Image.open(io.BytesIO(self._files[index])).convert("RGB")
        if self.transform is not None:
            image = self.transform(image)
        return image, self.labels[index]


def imagenet_sample(folder: str, split: str) -> ZippedImages:
    """Two fifths of the images for gradients (``train``), the others for accuracies."""
    rest = tuple(place for place in range(OF) if place not in CALIBRATION)
    return ZippedImages(folder, CALIBRATION if split == "train" else rest)
