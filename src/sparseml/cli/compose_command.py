"""``sparseml compose``: many pruned models, put together from blocks that are tuned once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sparseml.cli.problems import Problem

_POSITIVE, _WHOLE = click.IntRange(min=1), click.IntRange(min=0)
_RATE = click.FloatRange(min=0.0, min_open=True)
_DIFFERS, _NOT_REACHABLE = 3, 4
_plan = click.option("--plan", "plan_file", metavar="FILE", help="[that of the store]")
_store = click.option("--store", required=True, metavar="DIR", help="Folder of the blocks.")
_model = click.option("--model", metavar="MODEL", help="Of the plan, if it lies elsewhere.")
_weights = click.option("--weights", metavar="FILE", help="State dict to load into it.")
_data = click.option("--data", metavar="NAME", help="module.path:callable that gives the data.")
_batch = click.option("--batch-size", type=_POSITIVE, metavar="N", help="Told to --data.")
_source = click.option(
    "--source",
    type=click.Choice(["tuned", "pruned"]),
    default="tuned",
    show_default=True,
    help="pruned: blocks as they were before tuning.",
)
_RUN = (
    click.option("--recipe", metavar="FILE", help="For the fine-tuning: learning rates and so on"),
    click.option("--epochs", type=_WHOLE, metavar="N", help="[those of the recipe, or 1]"),
    click.option("--lr", type=_RATE, default=1e-3, show_default=True, help="Of AdamW."),
    click.option("--weight-decay", type=click.FloatRange(0.0), default=0.0, show_default=True),
    click.option("--seed", type=_WHOLE, default=0, show_default=True),
)


def _of_run(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed((_data, _batch, _model, _weights, _source, *_RUN)):
        command = option(command)
    return command


@click.group()
def compose() -> None:
    """Many pruned models for little more than one costs.

    Models that prune the same part of a model in the same way share it: it is pruned and tuned
    once, and put into each of them.

    \b
    Examples:
      sparseml compose plan --model my.code:model \\
        --recipes a.yaml b.yaml --out plan.json
      sparseml compose tune --store store --data my.code:data
    """


@compose.command(name="plan")
@click.option("--model", required=True, metavar="MODEL", help="hf:DIR or module.path:callable.")
@_weights
@click.option("--recipes", is_flag=True, help="The files are recipes, one a configuration.")
@click.option("--legacy-conf", is_flag=True, help="The file is a conf.json: module, density kept.")
@click.argument("files", metavar="FILES", nargs=-1, required=True)
@click.option("--out", required=True, metavar="FILE", help="The plan.")
@click.option(
    "--blocks",
    type=click.Choice(["module", "layer", "hierarchical"]),
    default="module",
    show_default=True,
    help="What is a block; hierarchical: runs of layers that configurations share.",
)
@click.option("--allow-residual", is_flag=True, help="Leave what is no block to the fine-tuning.")
@_data
@click.option("--legacy-plan", metavar="FILE", help="Write a conf_prune.json as well.")
@click.option("--epochs", type=_POSITIVE, default=5, show_default=True, help="Of tuning blocks.")
@click.option("--direct-epochs", type=click.FloatRange(0.0), metavar="N", help="Without blocks.")
@click.option("--composed-epochs", type=click.FloatRange(0.0), metavar="N", help="With them.")
@click.option("--estimate", is_flag=True, help="Tell the cost only; write nothing.")
def plan(**given: Any) -> None:
    """Find the blocks that configurations share, and what they cost.

    With --direct-epochs and --composed-epochs, the fine-tuning that a model takes without and with
    tuned blocks, it tells from how many configurations on they pay.

    \b
    Examples:
      sparseml compose plan --model my.code:model \\
        --recipes a.yaml b.yaml --out plan.json
      sparseml compose plan --model my.code:model \\
        --legacy-conf conf.json --out plan.json
    """
    _reported(lambda: _make_plan(given))


@compose.command()
@_plan
@_store
@_model
@_weights
@_data
def prune(**given: Any) -> None:
    """Prune the blocks of a plan.

    \b
    Example:
      sparseml compose prune --plan plan.json --store store
    """
    _reported(lambda: _prune(given))


@compose.command()
@_plan
@_store
@_data
@_batch
@_model
@_weights
@click.option("--recipe", metavar="FILE", help="With a BlockTuningModifier, which says the rest.")
@click.option("--epochs", type=_POSITIVE, default=5, show_default=True)
@click.option("--lr", type=_RATE, default=1e-3, show_default=True)
@click.option("--weight-decay", type=click.FloatRange(0.0), default=0.0, show_default=True)
@click.option(
    "--patience", type=_WHOLE, default=0, help="Epochs without a gain. [never ends early]"
)
@click.option("--loss", type=click.Choice(["nmse", "mse", "cosine"]), default="nmse")
@click.option("--seed", type=_WHOLE, default=0, show_default=True)
@click.option("--devices", default="cpu", show_default=True, help="Such as cuda:0,cuda:1.")
@click.option("--workers", type=_POSITIVE, default=1, show_default=True, help="Processes.")
@click.option("--threads", type=_POSITIVE, metavar="N", help="Of each; results depend on it.")
@click.option("--max-memory", metavar="SIZE", help="Of the blocks of a pass, such as 4GB.")
@click.option("--resume", is_flag=True, help="Go on with blocks that were begun.")
def tune(**given: Any) -> None:
    """Tune each block of a plan once.

    It learns what the model makes of the same inputs.

    Blocks that are there already are not tuned again.

    \b
    Example:
      sparseml compose tune --plan plan.json --store store \\
        --data my.code:data \\
        --epochs 4 --workers 2
    """
    _reported(lambda: _tune(given))


@compose.command()
@_plan
@_store
@_model
@_weights
@click.option("--config", required=True, metavar="NAME", help="Of the plan.")
@_source
@click.option("--out", required=True, metavar="DIR", help="For weights and masks.")
def assemble(**given: Any) -> None:
    """Put the model of a configuration together, without fine-tuning.

    \b
    Example:
      sparseml compose assemble --store store --config small --out small
    """
    _reported(lambda: _assemble(given))


@compose.command()
@_plan
@_store
@click.option("--config", required=True, metavar="NAME", help="Of the plan, or all.")
@click.option("--out", metavar="DIR", help="[STORE/models]")
@_of_run
@click.option("--resume", is_flag=True, help="Leave configurations alone that are done.")
def finetune(**given: Any) -> None:
    """Put the models of configurations together, and fine-tune each.

    \b
    Example:
      sparseml compose finetune --store store --config all \\
        --data my.code:data --epochs 2
    """
    _reported(lambda: _finetune(given))


@compose.command()
@_plan
@_store
@click.option("--objective", required=True, metavar="TEXT", help="Such as 'bleu>=33.0'.")
@click.option("--order", type=click.Choice(["params", "flops"]), default="params", help="[params]")
@click.option("--parallel", type=_POSITIVE, default=1, show_default=True, help="Models at a time.")
@_of_run
def explore(**given: Any) -> None:
    """Fine-tune small models first, until one meets the objective.

    Exit code 4: none does.

    \b
    Example:
      sparseml compose explore --store store --data my.code:data \\
        --objective 'accuracy>=0.9'
    """
    _reported(lambda: _explore(given))


@compose.command()
@_store
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def report(store: str, as_json: bool) -> None:
    """Show what composing has brought, and what it took.

    Writes report.html, report.md, pareto.svg into the store; `sparseml report` takes models, too.

    \b
    Example:
      sparseml compose report --store store
    """

    def run() -> None:
        from sparseml.compose.reporting import as_text, composed_report, write_report

        opened = _opened(store, None)
        found = composed_report(*opened)
        files = write_report(opened[0], found)
        click.echo(json.dumps(found, indent=1) if as_json else as_text(found), nl=as_json)
        if not as_json:
            click.echo(f"written: {', '.join(map(str, files))}")

    _reported(run)


def _reported(run: Callable[[], None]) -> None:
    """Run; end with 2 for mistakes, 3 for what plan or ledger tell otherwise, 4 for no success."""
    from sparseml.compose.exploring import NotReachableError
    from sparseml.pytorch.sparsification.composing.blocks import DigestError
    from sparseml.run.errors import RunError, one_line, run_reported

    code = 0

    def inner() -> None:
        nonlocal code
        try:
            run()
        except (DigestError, NotReachableError) as error:
            code = _DIFFERS if isinstance(error, DigestError) else _NOT_REACHABLE
            click.echo(f"error: {one_line(error)}", err=True)
        except (FileNotFoundError, ValueError) as error:
            raise RunError(one_line(error)) from error

    sys.exit(run_reported(inner) or code)


def _opened(store: str, plan_file: str | None) -> Any:
    from sparseml.pytorch.sparsification.composing.blocks import Plan
    from sparseml.pytorch.sparsification.composing.store import BlockStore

    opened = BlockStore(store)
    if plan_file is None:
        return opened, opened.plan()
    found = Plan.read(plan_file)
    opened.adopt(found)
    return opened, found


def _origin(given: dict[str, Any], plan: Any) -> tuple[str, str | None]:
    model = given["model"] or plan.base["model"]
    return model, given["weights"] or (None if given["model"] else plan.base["weights"])


def _make_plan(given: dict[str, Any]) -> None:
    from sparseml.compose.asking import legacy_plan, read_legacy, read_recipes
    from sparseml.compose.origin import load_data, load_origin
    from sparseml.compose.planning import costs_of, make_plan, told_costs
    from sparseml.compose.tuning import asking_of

    files = given["files"]
    if given["recipes"] == given["legacy_conf"]:
        raise Problem("either --recipes or --legacy-conf must say what FILES are")
    if given["legacy_conf"] and len(files) != 1:
        raise Problem(f"--legacy-conf takes one file, found {len(files)}")
    wanted = read_recipes(files) if given["recipes"] else read_legacy(files[0])
    model = load_origin(given["model"], given["weights"])
    data = None if given["data"] is None else load_data(given["data"])
    weights = given["weights"] and str(Path(given["weights"]).absolute())
    base = {"model": given["model"], "weights": weights}
    asking = asking_of(model, data, given["allow_residual"])
    plan, _ = make_plan(model, wanted, asking, given["blocks"], base)
    costs = costs_of(plan, model, given["epochs"])
    for line in told_costs(plan, costs, given["direct_epochs"], given["composed_epochs"]):
        click.echo(line)
    if given["estimate"]:
        return
    plan.write(given["out"])
    if given["legacy_plan"]:
        text = json.dumps(legacy_plan(wanted), indent=1)
        Path(given["legacy_plan"]).write_text(text + "\n", encoding="utf-8")
    click.echo(f"written: {given['out']}")


def _prune(given: dict[str, Any]) -> None:
    from sparseml.compose.origin import load_data, load_origin
    from sparseml.compose.tuning import prune_blocks

    store, plan = _opened(given["store"], given["plan_file"])
    data = None if given["data"] is None else load_data(given["data"])
    count = prune_blocks(plan, load_origin(*_origin(given, plan)), store, data)
    click.echo(f"{count} blocks pruned, {len(plan.blocks) - count} were there")


def _tune(given: dict[str, Any]) -> None:
    from sparseml.compose.tuning import TuneJob, tune
    from sparseml.pytorch.optim import ScheduledModifierManager
    from sparseml.pytorch.sparsification import BlockTuningModifier
    from sparseml.pytorch.sparsification.composing.student import TuningSettings
    from sparseml.pytorch.sparsification.pruning.settings.memory import parse_bytes

    _, plan = _opened(given["store"], given["plan_file"])
    names = ("epochs", "lr", "weight_decay", "patience", "loss", "seed")
    settings, memory, blocks = (
        TuningSettings(**{n: given[n] for n in names}),
        given["max_memory"],
        None,
    )
    if given["recipe"] is not None:
        manager = ScheduledModifierManager.from_yaml(given["recipe"])
        found = [one for one in manager.iter_modifiers() if isinstance(one, BlockTuningModifier)]
        if len(found) != 1:
            raise Problem(f"--recipe must have one BlockTuningModifier, found {len(found)}")
        settings, memory = found[0].settings(), memory or found[0].max_memory
        blocks = tuple(block.block_id for block in found[0].chosen(plan))
    tune(
        TuneJob(
            given["store"], _origin(given, plan)[0], _needed(given), settings,
            _origin(given, plan)[1], given["batch_size"], blocks,
            None if memory is None else parse_bytes(memory),
            tuple(given["devices"].split(",")), given["workers"], given["threads"], given["resume"],
        ),
        click.echo,
    )  # fmt: skip


def _assemble(given: dict[str, Any]) -> None:
    from sparseml.compose.finishing import write_composed
    from sparseml.compose.origin import load_origin

    store, plan = _opened(given["store"], given["plan_file"])
    model, out = load_origin(*_origin(given, plan)), Path(given["out"])
    write_composed(store, plan, given["config"], model, given["source"], out)
    click.echo(f"written: {out}")


def _finetune(given: dict[str, Any]) -> None:
    from sparseml.compose.finishing import FinishJob, finish, finished_models
    from sparseml.compose.origin import load_data, load_origin

    store, plan = _opened(given["store"], given["plan_file"])
    names = plan.names if given["config"] == "all" else [given["config"]]
    for name in names:
        plan.configuration(name)
    out = Path(given["out"] or store.folder / "models")
    model, data = load_origin(*_origin(given, plan)), load_data(_needed(given), given["batch_size"])
    done = finished_models(out) if given["resume"] else {}
    epochs = given["epochs"]
    if epochs is None and given["recipe"] is None:
        epochs = 1
    job = FinishJob(
        given["recipe"], epochs, given["lr"], given["weight_decay"], given["source"], given["seed"]
    )
    for name in names:
        if name in done:
            click.echo(f"{name}: done before")
            continue
        click.echo(f"{name}:")
        finish(store, plan, name, model, data, job, out / name, click.echo)


def _explore(given: dict[str, Any]) -> None:
    from sparseml.compose.exploring import Objective, by_size, explore
    from sparseml.compose.trying import Trying

    store, plan = _opened(given["store"], given["plan_file"])
    _needed(given)
    flags = ["data", "batch_size", "model", "weights", "source", "recipe", "epochs", "lr"]
    words: list[str] = []
    for name in [*flags, "weight_decay", "seed"]:
        if given[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(given[name])]
    trying = Trying(store.folder, words)
    names = by_size(plan, given["order"])
    objective = Objective.parse(given["objective"])
    click.echo(
        f"smallest: {explore(names, trying.start, objective, given['parallel'], click.echo)}"
    )


def _needed(given: dict[str, Any]) -> str:
    if given["data"] is None:
        raise Problem("--data must name what gives the data, as module.path:callable")
    return str(given["data"])
