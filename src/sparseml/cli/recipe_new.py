"""``sparseml recipe new``: a recipe for a model, and writing recipes to files."""

from __future__ import annotations

from pathlib import Path

import click

from sparseml.cli.problems import Problem, reported


@click.command()
@click.option(
    "--model",
    metavar="SOURCE",
    required=True,
    help="timm:NAME, hf:DIR, fairseq:FILE.pt, or module.path:callable (your own code).",
)
@click.option(
    "--method",
    type=click.Choice(["magnitude", "uniform", "gw", "cap", "fast_cap", "obs", "mfac"]),
    default="magnitude",
    show_default=True,
    help="What goes: small weights of all layers (magnitude) or of each (uniform), or what "
    "gradients say (the others).",
)
@click.option(
    "--sparsity", type=float, default=0.5, show_default=True, help="Zeros among pruned weights."
)
@click.option(
    "--epochs", type=float, metavar="N", help="Prune gradually, in N epochs; else in one shot."
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
    sparsity: float,
    epochs: float | None,
    effort: str,
    exclude: tuple[str, ...],
    output: str | None,
) -> None:
    """Make a recipe for a model.

    Its patterns are for the layers in the model's blocks; the input and output layers stay dense,
    as do depthwise convolutions.

    \b
    Examples:
      sparseml recipe new --model timm:vit_tiny_patch16_224 \\
        --method cap --sparsity 0.8
      sparseml recipe new --model timm:resnet18 --epochs 30 -o recipe.yaml
    """
    with reported():
        from sparseml.cli.model_source import build_model
        from sparseml.pytorch.optim.new_recipe import new_recipe

        try:
            text = new_recipe(build_model(model), method, sparsity, epochs, exclude, effort)
        except ValueError as error:
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
