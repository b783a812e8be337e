"""``sparseml gap``: grow-and-prune as a chain of training runs."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from sparseml.cli.problems import Problem

_WHOLE, _POSITIVE = click.IntRange(min=0), click.IntRange(min=1)
_RECIPE = """\
modifiers:
  - !GaPPruningModifier
      params: {params}
      final_sparsity: {sparsity}
      num_steps: {steps}
      update_frequency: {epochs}
      num_partitions: {parts}
"""


@click.group()
def gap() -> None:
    """Grow-and-prune as a chain of runs.

    A recipe with a GaPPruningModifier does the same in a single run of `sparseml train`.

    \b
    Examples:
      sparseml gap train --recipe my.yaml --workspace gap -- --config args.yaml
      sparseml gap merge 1/model.safetensors 2/model.safetensors -o m.safetensors
    """


@gap.command()
@click.option("--recipe", metavar="FILE", help="With one GaPPruningModifier, which says it all.")
@click.option("--recipe-args", metavar="TEXT", help="Variables of the recipe.")
@click.option("--steps", type=_POSITIVE, metavar="N", help="Runs, each of which grows something.")
@click.option("--epochs-per-step", type=_POSITIVE, metavar="N", help="[5]")
@click.option("--parts", type=_POSITIVE, metavar="N", help="Partitions. [3]")
@click.option(
    "--partition-type",
    type=click.Choice(["cyclic", "random", "parallel"]),
    help="parallel: in each step a worker for every partition. [cyclic]",
)
@click.option("--sparsity", type=click.FloatRange(0.0, 1.0, True, True), metavar="S", help="[0.8]")
@click.option("--params", multiple=True, metavar="NAME", help="What to prune. [all layers]")
@click.option("--recipe-dir", metavar="DIR", help="Its step_{i}.yaml replace what would be made.")
@click.option("--workspace", required=True, metavar="DIR", help="For all that comes of it.")
@click.option("--resume", is_flag=True, help="Go on with the chain in --workspace.")
@click.option("--from-step", type=_WHOLE, default=0, help="With --resume: all before must be done.")
@click.option("--seed", type=_WHOLE, default=42, show_default=True, help="Of step 0; 1 more each.")
@click.option("--lr", type=click.FloatRange(0.0, min_open=True), help="Learning rate of step 0.")
@click.option(
    "--lr-across-steps",
    type=click.Choice(["constant", "linear", "cosine", "step"]),
    default="constant",
    show_default=True,
    help="What becomes of --lr from step to step.",
)
@click.option(
    "--lr-decay-factor",
    type=click.FloatRange(0.0, 1.0, True, True),
    metavar="F",
    help="Of each step, with `--lr-across-steps step`.",
)
@click.option("--finetune-epochs", type=_WHOLE, default=5, show_default=True, help="0 for none.")
@click.option("--workers", type=_POSITIVE, default=1, help="Runs at a time, of a parallel step.")
@click.option("--gpus", type=_POSITIVE, default=1, show_default=True, help="Of each run.")
@click.option("--rest", type=click.Choice(["first", "mean"]), default="first", help="Of merging.")
@click.option("--with-parent", default="", metavar="WORDS", help="Added but for the first run.")
@click.option("--step0-args", default="", metavar="WORDS", help="Added for the first run only.")
@click.option(
    "--checkpoint",
    default="checkpoints/checkpoint_last.pt",
    show_default=True,
    metavar="FILE",
    help="What a command of your own leaves in {output}.",
)
@click.option("--dry-run", is_flag=True, help="Show the commands; start and write nothing.")
@click.argument("child", metavar="-- FLAGS | COMMAND", nargs=-1)
def train(**given: Any) -> None:
    """Train in steps, each a run of its own, then fine-tune.

    After -- come flags of `sparseml train`, or a command of your own with {recipe} and {output}
    in it, and {seed}, {epochs}, {lr} as it needs them; {parent} and {masks} go into --with-parent.
    A step is done when its run has ended well and its weights are as sparse as they shall be. The
    first failure ends the chain; --resume goes on there.

    \b
    Examples:
      sparseml gap train --steps 6 --epochs-per-step 2 --sparsity 0.9 --workspace out/gap \\
        -- --config args.yaml
      sparseml gap train --recipe my.yaml --workspace out/gap --dry-run -- --config args.yaml
    """
    from sparseml.run.errors import run_reported

    sys.exit(run_reported(lambda: _train(given)))


@gap.command()
@click.argument("workers", metavar="FILES", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="FILE", help="Of the kind of FILES.")
@click.option(
    "--rest",
    type=click.Choice(["first", "mean"]),
    default="first",
    show_default=True,
    help="Whose is what none has grown: the first worker's, or the mean of all.",
)
def merge(workers: tuple[str, ...], output: str, rest: Any) -> None:
    """Put the weights of parallel workers together.

    From each comes the partition that it has grown, which the masks beside its file tell.

    \b
    Example:
      sparseml gap merge 1/model.safetensors 2/model.safetensors -o m.safetensors
    """
    from sparseml.run.errors import run_reported

    def run() -> None:
        from sparseml.gap.merge import merge as together

        owner = together([Path(worker) for worker in workers], Path(output), rest)
        for number in range(len(workers)):
            click.echo(f"worker {number}: {list(owner.values()).count(number)} tensors")
        click.echo(f"{rest}: {list(owner.values()).count(None)} tensors")

    sys.exit(run_reported(run))


def _train(given: dict[str, Any]) -> None:
    from sparseml.gap.child import Child
    from sparseml.gap.launcher import Chain
    from sparseml.gap.plan import links

    described = _description(given)
    further, first = (shlex.split(given[name]) for name in ("with_parent", "step0_args"))
    if given["from_step"] and not given["resume"]:
        raise Problem("--from-step goes on with a chain: give --resume as well")
    if not [*given["child"], *further, *first]:
        raise Problem("after -- must be flags of sparseml train, or a command")
    child = Child(given["child"], further, first, given["checkpoint"], given["gpus"])
    folder = given["recipe_dir"]
    if folder is not None and not Path(folder).is_dir():
        raise Problem(f"--recipe-dir {folder}: no such folder")
    planned = links(described, None if folder is None else Path(folder))
    workspace = Path(given["workspace"]).absolute()
    chain = Chain(described, planned, workspace, child, given["workers"], given["rest"], click.echo)
    if given["dry_run"]:
        chain.show()
    else:
        chain.run(given["resume"], given["from_step"])


def _description(given: dict[str, Any]) -> Any:
    from sparseml.gap.plan import describe

    recipe = given["recipe"]
    if recipe is not None:
        for flag in ("parts", "sparsity", "params"):
            if given[flag]:
                raise Problem(f"--{flag} and --recipe: the recipe says it")
    elif given["steps"] is None:
        raise Problem("--steps or --recipe must say how many steps there are")
    if (given["lr_across_steps"] == "step") != (given["lr_decay_factor"] is not None):
        raise Problem("--lr-across-steps step and --lr-decay-factor need each other")
    if given["lr"] is None and given["lr_across_steps"] != "constant":
        raise Problem(f"--lr-across-steps {given['lr_across_steps']} needs --lr")
    text = recipe or _RECIPE.format(
        params=json.dumps(given["params"]) if given["params"] else "__ALL_PRUNABLE__",
        sparsity=given["sparsity"] or 0.8,
        steps=given["steps"],
        epochs=given["epochs_per_step"] or 5,
        parts=given["parts"] or 3,
    )
    return describe(
        text, given["recipe_args"], given["partition_type"],
        steps=given["steps"], epochs=given["epochs_per_step"], seed=given["seed"],
        finetune=given["finetune_epochs"], rate=given["lr"], across=given["lr_across_steps"],
        factor=given["lr_decay_factor"],
    )  # fmt: skip
