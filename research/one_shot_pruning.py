"""Prune a model in one shot, without training, to one or several sparsities, and evaluate each.

    python research/one_shot_pruning.py --model deit_tiny_patch16_224 --data-dir imagenet \\
        --sparseml-recipe recipes/timm/one_shot/cap/vit.yaml --sparsities 0.5 0.75 0.9

The same as ``sparseml prune``; :mod:`sparseml.run.one_shot` tells what it writes.
"""

from __future__ import annotations

import sys

from sparseml.run import prune
from sparseml.timm import GLUE


def main() -> int:
    """Run, and return the exit status."""
    return prune(sys.argv[1:], GLUE)


if __name__ == "__main__":
    sys.exit(main())
