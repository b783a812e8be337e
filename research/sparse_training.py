"""Train a model while a recipe prunes it: gradually, or in one shot before fine-tuning.

    python research/sparse_training.py -c configs/light1.yaml --model deit_tiny_patch16_224 \\
        --data-dir imagenet --sparseml-recipe recipes/timm/gradual/cap/vit.yaml

The same as ``sparseml train``; :mod:`sparseml.run.training` tells what it writes.
"""

from __future__ import annotations

import sys

from sparseml.run import train
from sparseml.timm import GLUE


def main() -> int:
    """Run, and return the exit status."""
    return train(sys.argv[1:], GLUE)


if __name__ == "__main__":
    sys.exit(main())
