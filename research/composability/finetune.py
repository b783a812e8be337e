"""Tune all blocks of a store, each against its part of the origin.

python research/composability/finetune.py -m runs/composability/store -e 4
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from commands import DATA, compose

from sparseml.run.errors import run_reported


def main() -> None:
    """Tune them."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("-m", "--modules_file", required=True, help="the store, which prune.py has filled")
    add("-e", "--epochs", type=int, required=True, help="parts of the data, of 32")
    add("--batch_size", type=int, default=64, help="[64]")
    args = parser.parse_args()
    words = ["tune", "--store", args.modules_file, "--data", DATA, "--epochs", args.epochs]
    compose(*words, "--batch-size", args.batch_size)


if __name__ == "__main__":
    sys.exit(run_reported(main))
