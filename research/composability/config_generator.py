"""Write configurations with one rate for every linear layer and every attention of the origin.

python research/composability/config_generator.py -m runs/composability/origin.safetensors
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path

from multi30k import model
from torch import nn

from sparseml.run.errors import run_reported

RATE = 0.5


def main() -> None:
    """Write the file; rates are to be edited by hand."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("-m", "--model_file", type=Path, required=True, help="weights of the origin")
    add("-o", "--output", type=Path, default=Path("conf.json"), help="[conf.json]")
    add("-n", "--conf_number", type=int, default=3, help="how many [3]")
    args = parser.parse_args()
    if not args.model_file.exists():
        parser.error(f"--model_file {args.model_file}: no such file")
    rates = dict.fromkeys(prunable(model()), RATE)
    args.output.write_text(json.dumps([rates] * args.conf_number, indent=1) + "\n")
    print(f"written: {args.output}, {args.conf_number} x {len(rates)} modules")


def prunable(origin: nn.Module) -> list[str]:
    """Return the names of the linear layers and attentions that nothing is tied to."""
    owners: dict[int, int] = {}
    for _, param in origin.named_parameters(remove_duplicate=False):
        owners[id(param)] = owners.get(id(param), 0) + 1
    return [
        name
        for name, one in origin.named_modules()
        if isinstance(one, (nn.Linear, nn.MultiheadAttention))
        and not name.endswith(".out_proj")
        and all(owners[id(param)] == 1 for param in one.parameters())
    ]


if __name__ == "__main__":
    sys.exit(run_reported(main))
