"""Put the model of one configuration together, and fine-tune it.

    python research/composability/retrain.py -m runs/composability/store \\
        -o runs/composability/origin.safetensors -c conf.json -n 0 -e 4
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

from commands import DATA, MODEL, compose

from sparseml.run.errors import run_reported


def main() -> None:
    """Fine-tune it."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("-m", "--modules_file", required=True, help="the store; its blocks may be tuned or not")
    add("-o", "--origin", required=True, help="weights of the origin")
    add("-c", "--conf_file", type=Path, required=True, help="the configurations")
    add("-n", "--index", type=int, required=True, help="which, from 0")
    add("-e", "--epochs", type=int, required=True, help="parts of the data, of 32")
    add("--batch_size", type=int, default=64, help="[64]")
    add("--source", choices=["tuned", "pruned"], default="tuned", help="[tuned]")
    args = parser.parse_args()
    name = f"{args.conf_file.stem}_{args.index}"
    words = ["finetune", "--store", args.modules_file, "--config", name, "--source", args.source]
    words += ["--model", MODEL, "--weights", args.origin, "--data", DATA]
    compose(*words, "--batch-size", args.batch_size, "--epochs", args.epochs)


if __name__ == "__main__":
    sys.exit(run_reported(main))
