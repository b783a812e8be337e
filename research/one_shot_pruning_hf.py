"""Prune a model of Transformers in one shot, to one or several sparsities, and evaluate each.

    python research/one_shot_pruning_hf.py data/sst2 --task sst2 --model hf:my_bert \\
        --sparseml-recipe recipes/transformers/one_shot/cap/bert.yaml --sparsities 0.5 0.8

The same as ``sparseml prune``; :mod:`sparseml.run.one_shot` tells what it writes.
"""

from __future__ import annotations

import sys

from sparseml.run import prune
from sparseml.transformers import GLUE


def main() -> int:
    """Run, and return the exit status."""
    return prune(sys.argv[1:], GLUE)


if __name__ == "__main__":
    sys.exit(main())
