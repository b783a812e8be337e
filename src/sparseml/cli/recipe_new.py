"""``sparseml recipe new``: a recipe for a model, and writing recipes to files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sparseml.cli.problems import Problem, reported


def _as_goal(_: Any, __: Any, values: tuple[str, ...]) -> dict[str, float] | None:
    if len(values) > 1:
        raise Problem(f"--goal is given once, found {' and '.join(values)}")
    for value in values:
        name, separator, number = value.partition("=")
        try:
            return {name.strip(): float(number)}
        except ValueError:
            found = f"found {value!r}" if separator else f"found {value!r} without ="
            raise Problem(f"--goal must be speedup=2, params=0.5 or the like, {found}") from None
    return None


def _tell(text: str) -> None:
    """Say to who waits before a terminal what takes so long."""
    if sys.stderr.isatty():
        click.echo(f"{text} ...", err=True)


@click.command()
@click.option(
    "--model",
    metavar="SOURCE",
    required=True,
    help="timm:NAME, hf:DIR, fairseq:FILE.pt, or module.path:callable (your own code).",
)
@click.option(
    "--method",
    type=click.Choice(
        ["magnitude", "uniform", "gw", "cap", "fast_cap", "obs", "mfac", "structured"]
    ),
    default="magnitude",
    show_default=True,
    help="What goes: small weights of all layers (magnitude) or of each (uniform), weights by what "
    "gradients say, or whole filters, neurons and heads (structured), which are removed.",
)
@click.option(
    "--sparsity",
    type=float,
    help="Zeros among pruned weights, or what goes of each layer's units; by default 0.5.",
)
@click.option(
    "--goal",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_as_goal,
    help="Of structured, in place of a sparsity: speedup=2, or the share to keep as params=0.5 or "
    "flops=0.5.",
)
@click.option(
    "--epochs",
    type=float,
    metavar="N",
    help="Prune gradually and fine-tune, in N epochs; else in one shot.",
)
@click.option(
    "--effort",
    type=click.Choice(["fast", "balanced", "best"]),
    default="balanced",
    show_default=True,
    help="Of cap, fast_cap, obs and mfac.",
)
@click.option("--exclude", multiple=True, metavar="NAME", help="A parameter to leave dense, too.")
@click.option("-o", "--output", metavar="FILE", help="Write it to FILE instead of printing it.")
def new(
    model: str,
    method: str,
    sparsity: float | None,
    goal: dict[str, float] | None,
    epochs: float | None,
    effort: str,
    exclude: tuple[str, ...],
    output: str | None,
) -> None:
    """Make a recipe for a model.

    Its patterns are for the layers in the model's blocks; the input and output layers stay dense,
    as do depthwise convolutions. What can be removed (structured) is found when pruning begins.

    \b
    Examples:
      sparseml recipe new --model timm:vit_tiny_patch16_224 \\
        --method cap --sparsity 0.8
      sparseml recipe new --model timm:resnet18 --epochs 30 -o recipe.yaml
      sparseml recipe new --model timm:resnet18 --method structured \\
        --goal speedup=1.5 --epochs 30 -o faster.yaml
    """
    with reported():
        if goal is not None and sparsity is not None:
            raise Problem("--goal is in place of --sparsity: give one of them")
        _tell(f"loading torch and building {model}")
        from sparseml.cli.model_source import build_model
        from sparseml.pytorch.optim.new_recipe import STRUCTURED, how_much, new_recipe

        asked = 0.5 if sparsity is None else sparsity
        try:
            how_much(method, asked, epochs, goal)
        except ValueError as error:
            raise Problem(str(error)) from error
        built = build_model(model)
        if method == STRUCTURED:
            _tell("looking for filters, neurons and heads that can be removed")
        try:
            text = new_recipe(built, method, asked, epochs, exclude, effort, goal)
        except (ImportError, ValueError) as error:
            raise Problem(f"--model {model}: {error}") from error
        if output:
            save_recipe(text, output)
    if not output:
        click.echo(text, nl=False)


def save_recipe(text: str, output: str) -> None:
    """Write a recipe to a file, which is then whole.

    :raises Problem: for a file that is no YAML by its name, or cannot be written
    """
    from sparseml.utils.atomic import atomic_path

    if Path(output).suffix.lower() not in (".yaml", ".yml"):
        raise Problem(f"--output {output}: a recipe is written to a .yaml or .yml file")
    try:
        with atomic_path(output) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Problem(f"--output {output}: cannot be written: {error.strerror}") from error
