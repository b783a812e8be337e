"""Grow-and-prune as a chain of runs, with the flags of the GaP reference's launcher.

    python research/run_seq_gap.py data-bin --ep-per-step 2 --num-steps 3 --num-parts 3 \\
        --partition-type cyclic --sparsity 0.9 --global-workspace output/gap \\
        --extra-cmd "--arch transformer --max-tokens 4096"

Every step is a ``fairseq-train`` on a folder of ``fairseq-preprocess``, with the settings of the
reference, to which ``--extra-cmd`` adds. It is ``sparseml gap train`` in other words, and ends as
that does: with everything pruned and ``--finetune-epochs`` of training. Another child is
``--child "sparseml train"``, or a command with ``{recipe}`` and ``{output}`` in it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from sparseml.cli import main as sparseml
from sparseml.fairseq import USER_DIR
from sparseml.gap.profiles import gap_recipe
from sparseml.run.errors import RunError, run_reported
from sparseml.utils.atomic import atomic_path

SCHEDULES = ("constant", "linear", "cosine", "step")
PEAK = 0.000846
FAIRSEQ_LAYERS = (
    r"re:(en|de)coder\.layers\.\d+\.((self|encoder)_attn\.(q|k|v|out)_proj|fc[12])\.weight"
)
UNUSED = ("--warmup", "--bs", "--optimizer-batch-size", "--lr-schedule-within-step")
OF_REFERENCE = shlex.split(
    "--arch transformer_wmt_en_de_big_t2t --share-all-embeddings --dropout 0.1 "
    "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --max-tokens 5120 "
    "--optimizer adam --adam-betas '(0.9,0.997)' --adam-eps 1e-9 --clip-norm 0.0 "
    "--lr-scheduler inverse_sqrt --warmup-updates 4000"
)


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the flags."""
    usage = "run_seq_gap.py [DATA] --partition-type TYPE [FLAG ...]; --help tells of all flags"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage=usage)
    add = parser.add_argument
    add("data", nargs="?", metavar="DATA", help="folder of fairseq-preprocess")
    add("--ep-per-step", type=int, default=5, help="epochs in a step")
    add("--num-steps", type=int, default=100, help="from --resume-from-step on")
    add("--resume-from-step", type=int, default=0, help="go on there; all before must be done")
    add("--num-parts", type=int, default=3, help="partitions")
    add("--partition-type", choices=("cyclic", "random", "parallel"), required=True)
    add("--workers", type=int, default=1, help="of a parallel step, at a time")
    add("--config-folder", help="with step files of the reference, in place of parts and sparsity")
    add("--global-workspace", help="[output/gap-PARTS-TYPE-SPARSITY-EPOCHS]")
    add("--sparsity-type", choices=("irregular",), default="irregular", help="any single weight")
    add("--sparsity", type=float, default=0.8)
    add("--lr", type=float, help=f"of the first step [{PEAK} of fairseq-train]")
    add("--lr-schedule-across-step", choices=SCHEDULES, default="constant")
    add("--lr-schedule-across-step-decay-factor", type=float, help="of each step, with step")
    add("--seed", type=int, default=3, help="of the first step; 1 more in each")
    add("--precision", default="amp", help="amp, or anything else for float32")
    add("--child", help="[fairseq-train] or: sparseml train, or a command with {recipe}")
    add("--extra-cmd", default="", help="more for the child")
    add("--extra-cmd-step0", default="", help="in place of --extra-cmd for the first step")
    add("--extra-cmd-parent", default="", help="more for all others, with {parent}")
    add("--finetune-epochs", type=int, default=40)
    add("--resume", action="store_true", help="go on at the first step that is not done")
    add("--dry-run", action="store_true", help="show the commands")
    for flag in UNUSED:
        add(flag, help="without effect, as in the reference")
    return parser.parse_args(_joined(argv))


def _joined(argv: Sequence[str]) -> list[str]:
    """Return flags with what follows an ``--extra-cmd`` joined to it.

    argparse takes text that begins with dashes for a flag of its own.
    """
    words, joined = iter(argv), []
    for word in words:
        following = (
            next(words, None) if word.startswith("--extra-cmd") and "=" not in word else None
        )
        joined.append(word if following is None else f"{word}={following}")
    return joined


def words(given: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the words of the child, and those for all steps but the first."""
    amp = given.precision == "amp"
    if given.child is None:
        if not given.data:
            raise RunError("DATA must be a folder of fairseq-preprocess, or --child another child")
        child = [sys.executable, "-m", "fairseq_cli.train", given.data, "--user-dir", str(USER_DIR)]
        child += ["--sparseml-recipe", "{recipe}", "--save-dir", "{output}/checkpoints"]
        child += ["--seed", "{seed}", "--max-epoch", "{epochs}", "--lr", "{lr}"]
        child += ["--no-epoch-checkpoints", *OF_REFERENCE, *["--amp"] * amp]
        parent = ["--finetune-from-model", "{parent}"]
        if given.partition_type != "parallel":  # what is merged is dense
            parent += ["--sparseml-initial-masks", "{masks}"]
        return child, parent
    child = shlex.split(given.child)
    if child[:2] == ["sparseml", "train"]:
        return [*child[2:], *["--amp"] * amp], []
    return [*child, *["--fp16"] * amp], []


def launch(given: argparse.Namespace) -> None:
    """Start the chain."""
    for flag in UNUSED:
        if getattr(given, flag[2:].replace("-", "_")) is not None:
            print(f"{flag} has no effect", file=sys.stderr)
    name = f"gap-{given.num_parts}-{given.partition_type}-{given.sparsity}-{given.ep_per_step}"
    workspace = Path(given.global_workspace or f"output/{name}")
    begins = given.resume_from_step
    if begins and not (workspace / "manifest.json").exists():
        raise RunError(f"--resume-from-step {begins}: {workspace} holds no chain to go on with")
    child, parent = words(given)
    extra = shlex.split(given.extra_cmd)
    first = shlex.split(given.extra_cmd_step0) or extra
    parent += [*extra, *shlex.split(given.extra_cmd_parent)]
    if given.config_folder not in (None, "None"):
        recipe = workspace.with_name(f"{workspace.name}-profile.yaml")
        with atomic_path(recipe) as part:
            part.write_text(gap_recipe(given.config_folder), encoding="utf-8")
        what = ["--recipe", str(recipe)]
    else:
        what = ["--parts", str(given.num_parts), "--sparsity", str(given.sparsity)]
        if given.child is None:
            what += ["--params", FAIRSEQ_LAYERS]
    flags = {
        "--steps": begins + given.num_steps, "--epochs-per-step": given.ep_per_step,
        "--partition-type": given.partition_type, "--workers": given.workers,
        "--workspace": workspace, "--seed": given.seed, "--from-step": begins or None,
        "--lr": PEAK if given.lr is None and given.child is None else given.lr,
        "--lr-across-steps": given.lr_schedule_across_step,
        "--lr-decay-factor": given.lr_schedule_across_step_decay_factor,
        "--finetune-epochs": given.finetune_epochs, "--step0-args": shlex.join(first),
        "--with-parent": shlex.join(parent),
    }  # fmt: skip
    what += [text for flag, v in flags.items() if v is not None for text in (flag, str(v))]
    what += ["--resume"] * bool(given.resume or begins) + ["--dry-run"] * given.dry_run
    sparseml(["gap", "train", *what, "--", *child])


if __name__ == "__main__":
    arguments = parse(sys.argv[1:])
    sys.exit(run_reported(lambda: launch(arguments)))
