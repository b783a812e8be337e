"""The commands of ``integrations/fairseq/README.md``, read by the parsers that they are for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from sparseml.cli import main
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.utils.ready_recipes import ready_recipes

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "integrations/fairseq/README.md").read_text()
COMMANDS = re.findall(r"^\$ (.*)$", README, re.MULTILINE)
OWN = [command for command in COMMANDS if command.startswith("python ")]
TRAINING = [command for command in COMMANDS if command.startswith("fairseq-train ")]
CHAINS = [command for command in COMMANDS if command.startswith("sparseml gap train ")]


def _expanded(command: str) -> list[str]:
    """The words of a command, with its file of arguments and without its plugin."""
    file = re.search(r"\$\(cat (\S+)\)", command)
    assert file is not None
    words = command.replace(file[0], "@@").replace(
        '--user-dir "$(python -m sparseml.fairseq)" ', ""
    )
    arguments = (ROOT / file[1]).read_text().split()
    return [one for word in shlex.split(words) for one in (arguments if word == "@@" else [word])]


@pytest.mark.parametrize("command", OWN)
def test_flags_of_scripts_are_there(command: str, script: Callable[[str], ModuleType]) -> None:
    words = shlex.split(command)[1:]
    assert (ROOT / words[0]).is_file()
    args, further = script(Path(words[0]).stem).parser().parse_known_args(words[1:])
    assert further in ([], ["--cpu"]) and vars(args)


@pytest.mark.parametrize("command", TRAINING)
def test_flags_of_training_recipes_and_lengths_are_there(
    command: str, parsed: Callable[..., Any]
) -> None:
    words = _expanded(command)[2:]
    recipe, variables = None, ""
    if "--sparseml-recipe" in words:
        place = words.index("--sparseml-recipe")
        _, recipe, _, variables = words[place : place + 4]
        del words[place : place + 4]
    args = parsed("small", *words)
    assert args.save_dir.startswith("output/") and args.max_epoch == 6
    if recipe is not None:
        manager = ScheduledModifierManager.from_yaml(recipe, recipe_variables=variables)
        assert manager.max_epochs == args.max_epoch and manager.pruning_modifiers


@pytest.mark.parametrize("command", CHAINS)
def test_a_chain_has_the_steps_that_the_page_shows(command: str) -> None:
    words = _expanded(command)[1:]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    steps = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert steps == re.findall(r"^(?:step_\d|final): .*$", README, re.MULTILINE)


def test_the_page_names_only_what_there_is() -> None:
    assert len(OWN) >= 4 and len(TRAINING) >= 3 and CHAINS
    for path in re.findall(r"(?:recipes|integrations|configs|docs)/[\w./+-]+\w", README):
        assert (ROOT / path).exists(), path
    ready = {name for name in ready_recipes() if name.startswith("fairseq/gap/")}
    assert set(re.findall(r"recipe:(fairseq/gap/\w+)", README)) <= ready
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", README, re.MULTILINE)
    named = {f"fairseq/gap/{name}" for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == ready
    files = set(re.findall(r"^\| `(\w+\.args)` \|", README, re.MULTILINE))
    assert files == {path.name for path in (ROOT / "configs/fairseq").iterdir()}
