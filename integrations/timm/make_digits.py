"""Write scikit-learn's handwritten digits as a folder of images, as timm reads them.

    python integrations/timm/make_digits.py data/digits

1,797 images of 32x32 pixels in ``train/<digit>/`` and, every fifth of them, in ``val/<digit>/``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from sparseml.run.errors import run_reported

VALIDATION = 5


def main(folder: Path) -> None:
    """Write all images."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        split = "val" if number % VALIDATION == 0 else "train"
        path = folder / split / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        gray = Image.fromarray((pixels * 255 / 16).astype(np.uint8))
        gray.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB").save(path)
    print(f"{number + 1} images in {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_digits.py FOLDER")
    sys.exit(run_reported(lambda: main(Path(sys.argv[1]))))
