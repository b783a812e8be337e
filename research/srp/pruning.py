"""Shrink a trained Transformer by SRP, with the flags of its first implementation.

    python research/srp/pruning.py DATA --task SRPtranslation --arch srp_iwslt_de_en \\
        --criterion srp --optimizer srp_adam --lr 5e-4 --max-tokens 4096 --max-epoch 20 \\
        --save-dir output/stage1 \\
        --pretrained-model output/dense/checkpoint_best.pt --srp --compression-rate 0.2 \\
        --pruning-stage 1 --pruning-period 20 --decreasing sa --weighted-layernorm

With ``--srp`` this is ``fairseq-train``. Without, all units that go are removed at once and nothing
is trained: ``checkpoint_last.pt`` then is what ``sparseml prune`` has made of the model, and beside
it lies its report; of the flags only those count that are named below.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from launch import fairseq

from sparseml.fairseq import GLUE
from sparseml.run import prune

RECIPE = "recipe:fairseq/one_shot/srp/transformer"


def one_shot(argv: Sequence[str]) -> int:
    """Remove units at once, and leave the model where training would; return the status."""
    parser = argparse.ArgumentParser(description="Remove units in one shot.", allow_abbrev=False)
    add = parser.add_argument
    add("data", help="folder of fairseq-preprocess")
    add("--pretrained-model", required=True, metavar="FILE", help="checkpoint to shrink")
    add("--compression-rate", type=float, default=0.2, help="share of the parameters to keep [0.2]")
    add("--max-tokens", type=int, default=4096, help="of a batch [4096]")
    add("--save-dir", type=Path, default=Path("checkpoints"), help="[checkpoints]")
    args, _ = parser.parse_known_args(argv)
    report = args.save_dir / "one_shot"
    command = [args.data, "--model", f"fairseq:{args.pretrained_model}"]
    command += ["--recipe", RECIPE, "--max-tokens", str(args.max_tokens), "--overwrite"]
    command += ["--recipe-args", f"compression_rate={args.compression_rate}"]
    command += ["--output", str(report.parent), "--experiment", report.name]
    status = prune(command, GLUE, "sparseml prune")
    if not status:
        made = max(report.rglob("checkpoint.pt"), key=lambda path: path.stat().st_mtime)
        shutil.copy(made, args.save_dir / "checkpoint_last.pt")
        print(f"{args.save_dir / 'checkpoint_last.pt'}; report: {report / 'report.html'}")
    return status


def main(argv: Sequence[str]) -> int:
    """Shrink while training, or at once; return the status of the process."""
    return fairseq("train", argv) if "--srp" in argv else one_shot(argv)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
