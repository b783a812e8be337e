"""``sparseml recipe``: look at recipes without training anything."""

from __future__ import annotations

import copy
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from sparseml.cli.problems import Problem, reported
from sparseml.cli.recipe_new import new, save_recipe

if TYPE_CHECKING:
    from sparseml.pytorch.optim import ScheduledModifierManager

_recipe_args = click.option(
    "--recipe-args", metavar="TEXT", help="Variables to set: JSON, or name=value,name=value."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.group()
def recipe() -> None:
    """List, check, show and combine recipes.

    \b
    Examples:
      sparseml recipe list vit cap
      sparseml recipe check recipe:timm/one_shot/cap/vit
    """


@recipe.command("list")
@click.argument("words", metavar="[WORD]...", nargs=-1)
@_as_json
def list_ready(words: tuple[str, ...], as_json: bool) -> None:
    """Name the recipes that come with sparseml.

    With WORDs only those with all of them in their names. Each can be given by its name wherever a
    recipe is asked for.

    \b
    Examples:
      sparseml recipe list
      sparseml recipe list gradual resnet
    """
    from sparseml.utils.ready_recipes import READY_PREFIX, ready_recipes

    found = {
        f"{READY_PREFIX}{name}": path
        for name, path in ready_recipes().items()
        if all(word in name for word in words)
    }
    if as_json:
        _echo_json({"recipes": [{"name": name, "file": path} for name, path in found.items()]})
    elif found:
        click.echo("\n".join(found))
    else:
        known = len(ready_recipes())
        click.echo(f"no recipe (of {known}) has {' and '.join(words)} in its name", err=True)


@recipe.command()
@click.argument("recipe_path", metavar="RECIPE")
@click.option(
    "--model",
    metavar="SOURCE",
    help="Match the patterns on timm:NAME, hf:DIR, fairseq:FILE.pt, or module.path:callable (your "
    "own code).",
)
@click.option(
    "--steps-per-epoch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Optimizer steps in an epoch; 100 if no part of the recipe depends on them.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Epochs to train for; by default as many as the recipe asks for.",
)
@click.option("--all", "everything", is_flag=True, help="Leave out no update and no parameter.")
@click.option(
    "--allow-inert", is_flag=True, help="Accept modifiers that are loaded and cannot act yet."
)
@_recipe_args
@_as_json
def check(
    recipe_path: str,
    model: str | None,
    steps_per_epoch: int | None,
    epochs: int | None,
    everything: bool,
    allow_inert: bool,
    recipe_args: str | None,
    as_json: bool,
) -> None:
    """Say if RECIPE is valid, what it does when, and to what.

    With --model also which weights it prunes and which stay dense. Exit code 2 and one line on
    stderr tell what is wrong.

    \b
    Examples:
      sparseml recipe check recipe:timm/gradual/gm/resnet
      sparseml recipe check recipe:timm/one_shot/cap/vit \\
        --model timm:vit_tiny_patch16_224 --steps-per-epoch 500
    """
    with reported(as_json):
        found = _findings(recipe_path, recipe_args, model, steps_per_epoch, epochs)
    problem = None if allow_inert else _inert(found, recipe_path)
    if as_json:
        error = {} if problem is None else {"error": problem.details}
        about = {"valid": problem is None, "recipe": recipe_path, "model": model}
        _echo_json({**about, **error, **found})
    else:
        _print_findings(found, everything)
    if problem is not None:
        raise problem


@recipe.command()
@click.argument("recipe_path", metavar="RECIPE")
@_recipe_args
@_as_json
def show(recipe_path: str, recipe_args: str | None, as_json: bool) -> None:
    """Print RECIPE as it is run.

    Its variables are set, expressions evaluated, and modifiers sorted.

    \b
    Example:
      sparseml recipe show recipe:timm/one_shot/cap/vit --recipe-args sparsity=0.7
    """
    with reported(as_json):
        manager = _load(recipe_path, recipe_args)
    _print_recipe(manager, as_json)


@recipe.command()
@click.argument("base")
@click.argument("additional")
@click.option("-o", "--output", metavar="FILE", help="Write it to FILE instead of printing it.")
@click.option(
    "--keep-original-epochs", is_flag=True, help="Do not move ADDITIONAL to the end of BASE."
)
@_as_json
def chain(
    base: str, additional: str, output: str | None, keep_original_epochs: bool, as_json: bool
) -> None:
    """Make one recipe of two, one after the other.

    First comes the work of BASE, then that of ADDITIONAL, as stages.

    \b
    Example:
      sparseml recipe chain recipe:timm/one_shot/gm/resnet \\
        recipe:demo/dense -o both.yaml
    """
    with reported(as_json):
        from sparseml.pytorch.optim import ScheduledModifierManager

        first, second = _load(base, None), _load(additional, None)
        try:
            manager = ScheduledModifierManager.compose_staged(first, second, keep_original_epochs)
        except (RuntimeError, ValueError) as error:
            raise Problem(f"{base} and {additional} cannot be combined: {error}") from error
        if output:
            save_recipe(str(manager), output)
    if not output or as_json:
        _print_recipe(manager, as_json)


@recipe.command()
@click.argument("config", metavar="CONFIG")
@click.option(
    "--from",
    "source",
    type=click.Choice(["inc", "gap"]),
    required=True,
    help="Whose settings CONFIG has; inc: Intel Neural Compressor's WeightPruningConfig; gap: a "
    "folder of step files of grow-and-prune.",
)
@click.option("-o", "--output", metavar="FILE", help="Write it to FILE instead of printing it.")
def convert(config: str, source: str, output: str | None) -> None:
    """Make a recipe of the pruning settings of another library.

    CONFIG is YAML or JSON. For Intel Neural Compressor it holds the arguments of
    WeightPruningConfig: keys for all pruners and, in pruning_configs, those of each, which win.
    Its N:M prunes N of M; in recipes N are kept. For GaP it is a folder with step_0.yaml,
    step_1.yaml and so on.

    \b
    Examples:
      sparseml recipe convert --from inc pruning.yaml -o recipe.yaml
      sparseml recipe convert --from gap profiles/0.8_std_naming -o recipe.yaml
    """
    from sparseml.cli.inc_config import inc_recipe
    from sparseml.gap.profiles import gap_recipe
    from sparseml.run.errors import RunError

    with reported():
        try:
            text = inc_recipe(config) if source == "inc" else gap_recipe(config)
        except RunError as error:
            raise Problem(str(error)) from error
        if output:
            save_recipe(text, output)
    if not output:
        click.echo(text, nl=False)


# what it was called before composing came to mean composing blocks
compose = copy.copy(chain)
compose.hidden = True
recipe.add_command(compose, "compose")
recipe.add_command(new)


def _findings(
    recipe_path: str,
    recipe_args: str | None,
    model_source: str | None,
    steps: int | None,
    epochs: int | None,
) -> dict[str, Any]:
    _refuse_repeated_keys(recipe_path)
    manager = _load(recipe_path, recipe_args)
    from sparseml.cli.recipe_matches import check_patterns, matches, overlaps
    from sparseml.cli.recipe_phases import phases
    from sparseml.cli.recipe_plan import coverage, plan

    for modifier in manager.iter_modifiers():
        check_patterns(modifier, recipe_path)
    try:
        found = plan(manager, steps, epochs)
    except ValueError as error:
        raise Problem(f"{recipe_path}: {error}", file=recipe_path) from error
    if model_source:
        from sparseml.cli.model_source import build_model

        model, modifiers = build_model(model_source), list(manager.iter_modifiers())
        for modifier, entry in zip(modifiers, found["modifiers"], strict=True):
            entry["matches"] = matches(modifier, model, recipe_path)
            if grows := phases(modifier, model):
                entry["phases"] = grows
        _add_removals(found, modifiers, model_source, recipe_path)
        found["overlaps"] = overlaps(modifiers, found["modifiers"], recipe_path)
        if any("one_shot_sparsity" in entry for entry in found["modifiers"]):
            found["coverage"] = coverage(modifiers, found["modifiers"], model)
    return found


def _add_removals(
    found: dict[str, Any], modifiers: list[Any], source: str, recipe_path: str
) -> None:
    from sparseml.cli.model_source import build_model
    from sparseml.cli.recipe_matches import pointing_at
    from sparseml.cli.recipe_removals import removals, removes_units

    model = None
    for modifier, entry in zip(modifiers, found["modifiers"], strict=True):
        if removes_units(modifier):
            model = build_model(source, computes=True) if model is None else model
            with pointing_at(recipe_path, modifier):
                entry["removes"] = removals(modifier, model)


def _print_findings(found: dict[str, Any], everything: bool) -> None:
    from sparseml.cli.recipe_tables import notes, tables
    from sparseml.cli.tables import folded, terminal_width

    for text in tables(found, everything):
        click.echo(text)
    for note in notes(found):
        # what reads it from a file or a pipe finds whole lines
        click.echo("\n".join(folded(note, terminal_width())) if sys.stdout.isatty() else note)


def _inert(found: dict[str, Any], recipe_path: str) -> Problem | None:
    """Return what to say of a recipe with modifiers that cannot act yet; None for others."""
    numbers = [number for number, entry in enumerate(found["modifiers"], 1) if "inert" in entry]
    if not numbers:
        return None
    first = found["modifiers"][numbers[0] - 1]
    others = "" if len(numbers) == 1 else f" ({len(numbers)} modifiers)"
    return Problem(
        f"{recipe_path}: !{first['modifier']}{others} is loaded and cannot run: {first['inert']}; "
        "allow_inert=True in Python, or SPARSEML_ALLOW_INERT=1 in the environment, runs the rest "
        "of the recipe without it, and --allow-inert checks it",
        kind="inert",
        file=recipe_path,
        modifiers=numbers,
    )


def _refuse_repeated_keys(path: str) -> None:
    """Refuse a recipe with a key that occurs twice in one mapping, which loading only warns of."""
    from sparseml.optim.errors import RecipeValueError
    from sparseml.optim.language.document import parse
    from sparseml.optim.language.source import read_source

    if "\n" in path or "\r" in path:
        return  # refused when it is loaded
    document = parse(read_source(path), warn=False)
    for repeated in document.repeated.values():
        raise document.error(RecipeValueError, str(repeated), repeated.path)


def _load(path: str, recipe_args: str | None) -> ScheduledModifierManager:
    from sparseml.pytorch.optim import ScheduledModifierManager

    if "\n" in path or "\r" in path:
        raise Problem(f"{path!r} is not the path of a recipe")
    return ScheduledModifierManager.from_yaml(path, recipe_variables=recipe_args)


def _print_recipe(manager: ScheduledModifierManager, as_json: bool) -> None:
    if not as_json:
        click.echo(str(manager), nl=False)
        return
    modifiers = [
        {
            "stage": stage,
            "modifier": type(modifier).__name__,
            "fields": modifier.props(only_serializable=True),
        }
        for stage, modifier in manager.iter_staged_modifiers()
    ]
    _echo_json({"metadata": manager.metadata, "modifiers": modifiers, "text": str(manager)})


def _echo_json(content: dict[str, Any]) -> None:
    click.echo(json.dumps(content, indent=2, default=str))
