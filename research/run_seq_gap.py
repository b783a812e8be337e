"""Grow-and-prune as a chain of runs, with the flags of the GaP reference's launcher.

    python research/run_seq_gap.py --ep-per-step 2 --num-steps 3 --num-parts 3 \\
        --partition-type cyclic --sparsity 0.9 --global-workspace output/gap \\
        --extra-cmd "--config args.yaml"

It is ``sparseml gap train`` in other words, and ends as that does: with everything pruned and
``--finetune-epochs`` of training. ``--extra-cmd`` has the flags of ``sparseml train``, or a whole
command with ``{recipe}`` and ``{output}`` in it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from sparseml.cli import main as sparseml
from sparseml.gap.profiles import gap_recipe
from sparseml.run.errors import RunError, run_reported
from sparseml.utils.atomic import atomic_path

SCHEDULES = ("constant", "linear", "cosine", "step")


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--ep-per-step", type=int, default=5, help="epochs in a step")
    add("--num-steps", type=int, default=100)
    add("--num-parts", type=int, default=3, help="partitions")
    add("--partition-type", choices=("cyclic", "random", "parallel"), required=True)
    add("--workers", type=int, default=1, help="of a parallel step, at a time")
    add("--config-folder", help="with step files of the reference, in place of parts and sparsity")
    add("--global-workspace", help="[output/gap-PARTS-TYPE-SPARSITY-EPOCHS]")
    add("--sparsity-type", choices=("irregular",), default="irregular", help="any single weight")
    add("--sparsity", type=float, default=0.8)
    add("--lr", type=float, help="of the first step")
    add("--lr-schedule-across-step", choices=SCHEDULES, default="constant")
    add("--lr-schedule-across-step-decay-factor", type=float, help="of each step, with step")
    add("--seed", type=int, default=3, help="of the first step; 1 more in each")
    add("--precision", default="amp", help="amp, or anything else for float32")
    add("--extra-cmd", default="", help="flags of sparseml train, or a command")
    add("--extra-cmd-step0", default="", help="more for the first step")
    add("--extra-cmd-parent", default="", help="more for all others, with {parent}")
    add("--finetune-epochs", type=int, default=40)
    add("--resume", action="store_true", help="go on at the first step that is not done")
    add("--dry-run", action="store_true", help="show the commands")
    return parser.parse_args(argv)


def launch(given: argparse.Namespace) -> None:
    """Start the chain."""
    name = f"gap-{given.num_parts}-{given.partition_type}-{given.sparsity}-{given.ep_per_step}"
    workspace = Path(given.global_workspace or f"output/{name}")
    if given.config_folder:
        recipe = workspace.with_name(f"{workspace.name}-profile.yaml")
        with atomic_path(recipe) as part:
            part.write_text(gap_recipe(given.config_folder), encoding="utf-8")
        what = ["--recipe", str(recipe)]
    else:
        what = ["--parts", str(given.num_parts), "--sparsity", str(given.sparsity)]
    flags = {
        "--steps": given.num_steps, "--epochs-per-step": given.ep_per_step,
        "--partition-type": given.partition_type, "--workers": given.workers,
        "--workspace": workspace, "--lr": given.lr, "--seed": given.seed,
        "--lr-across-steps": given.lr_schedule_across_step,
        "--lr-decay-factor": given.lr_schedule_across_step_decay_factor,
        "--finetune-epochs": given.finetune_epochs, "--step0-args": given.extra_cmd_step0,
        "--with-parent": given.extra_cmd_parent,
    }  # fmt: skip
    what += [text for flag, v in flags.items() if v is not None for text in (flag, str(v))]
    what += ["--resume"] * given.resume + ["--dry-run"] * given.dry_run
    child = shlex.split(given.extra_cmd)
    if not child:
        raise RunError("--extra-cmd must say how to train: flags of sparseml train, or a command")
    if given.precision == "amp":
        child.append("--fp16" if any("{recipe}" in word for word in child) else "--amp")
    sparseml(["gap", "train", *what, "--", *child])


if __name__ == "__main__":
    arguments = parse(sys.argv[1:])
    sys.exit(run_reported(lambda: launch(arguments)))
