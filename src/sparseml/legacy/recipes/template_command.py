"""The command that writes a recipe to start from."""

from __future__ import annotations

from typing import Any

import click

from sparseml.legacy.recipes import template
from sparseml.legacy.recipes.template import LR_FUNCTIONS, MASK_TYPES, PRUNING_KINDS

__all__ = ["main"]

_FLAG: dict[str, Any] = {
    "type": click.Choice(["true", "false"], case_sensitive=False),
    "is_flag": False,
    "flag_value": "true",
    "default": "false",
}


class _Pruning(click.Choice[str]):
    """The choices of ``--pruning``, of which AC/DC may be written so."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(str(value).replace("/", ""), param, ctx)


@click.command(context_settings={"show_default": True})
@click.option(
    "--pruning",
    **{**_FLAG, "type": _Pruning(PRUNING_KINDS, case_sensitive=False), "default": None},
    help="How to prune; alone or 'true' for magnitude.",
)
@click.option("--quantization", **_FLAG, help="Whether to quantize at the end.")
@click.option(
    "--lr",
    "--learning_rate",
    "--learning-rate",
    "lr",
    type=click.Choice(LR_FUNCTIONS, case_sensitive=False),
    default="constant",
    help="How the learning rate changes.",
)
@click.option(
    "--target",
    type=click.Choice(list(MASK_TYPES), case_sensitive=False),
    help="What the model will run on, which decides the pattern of zeros.",
)
@click.option("--distillation", **_FLAG, help="Whether a teacher helps.")
@click.option(
    "--file_name",
    "--file-name",
    "file_name",
    type=click.Path(dir_okay=False),
    default="recipe.md",
    help="The file to write.",
)
def main(
    pruning: str | None,
    quantization: str,
    lr: str,
    target: str | None,
    distillation: str,
    file_name: str,
) -> None:
    """Write a recipe to start from, and print it.

    \b
    Examples:
      python -m sparseml.pytorch.recipe_template.cli --pruning acdc --lr cosine
      python -m sparseml.pytorch.recipe_template.cli --pruning true --target vnni
    """
    text = template.recipe_template(
        pruning=pruning,
        quantization=quantization,
        lr=lr,
        mask_type=MASK_TYPES.get(target or "", "unstructured"),
        # movement pruning ranks the weights of each layer for itself
        global_sparsity=pruning != "movement",
        target=target,
        file_name=file_name,
        distillation=distillation == "true",
    )
    click.echo(text)
    click.echo(f"Written to {file_name}", err=True)
