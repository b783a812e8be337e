"""The commands of ``integrations/huggingface/README.md``, and its code."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from sparseml.cli import main
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.run.settings import parse
from sparseml.transformers import GLUE
from sparseml.transformers.scripts import parsed
from sparseml.utils.ready_recipes import ready_recipes

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "integrations/huggingface/README.md").read_text()
COMMANDS = re.findall(r"^\$ (.*)$", README, re.MULTILINE)
TRAINING = [command for command in COMMANDS if re.search(r"run_(glue|qa)\.py ", command)]
PRUNING = [command for command in COMMANDS if command.startswith("sparseml prune ")]
ALONE = [command for command in COMMANDS if "run_glue_no_trainer" in command]
MAKING = [command for command in COMMANDS if "/make_" in command]
(SNIPPET,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
Load = Callable[[str], ModuleType]


def _words(command: str) -> tuple[str, list[str]]:
    """The name of a script, and its flags."""
    words = shlex.split(os.path.expandvars(command))
    place = next(at for at, word in enumerate(words) if word.endswith(".py"))
    return Path(words[place]).stem, words[place + 1 :]


@pytest.mark.parametrize("command", TRAINING)
def test_flags_recipes_and_variables_are_there(command: str, script: Load) -> None:
    name, flags = _words(command)
    module = script(name)
    data = module.TextArguments if name == "run_glue" else module.QuestionArguments
    model, _, args = parsed(flags, data, "")
    assert args.do_train and args.output_dir.startswith("output/")
    if model.recipe:
        manager = ScheduledModifierManager.from_yaml(
            model.recipe, recipe_variables=model.recipe_args
        )
        assert manager.pruning_modifiers and manager.distillation_modifiers


@pytest.mark.parametrize("command", PRUNING)
def test_flags_of_one_shot_are_there(command: str) -> None:
    settings: Any = GLUE.one_shot_settings(shlex.split(command)[2:])
    assert settings.sweep.sparsities and settings.model.model == "hf:output/sst2-dense"
    run = settings.run
    manager = ScheduledModifierManager.from_yaml(
        run.sparseml_recipe, recipe_variables=run.recipe_args
    )
    assert manager.pruning_modifiers


@pytest.mark.parametrize("command", ALONE)
def test_flags_of_the_script_without_a_trainer_are_there(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "integrations/huggingface"))
    settings = importlib.import_module("no_trainer.settings").ScriptSettings
    found: Any = parse(settings, _words(command)[1])
    assert found.pruning.do_prune and found.run.output == "output/sst2-no-trainer"


def test_a_command_that_fails_says_what_the_page_says(
    script: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = [one for one in TRAINING if "output/too-short" in one]
    name, flags = _words(command)
    assert script(name).main(flags) == 2
    (told,) = re.findall(r"^error: .*$", README, re.MULTILINE)
    assert capsys.readouterr().err.splitlines() == [told]


@pytest.mark.filterwarnings("ignore:'pin_memory':UserWarning")  # of a Trainer on a CPU
def test_data_and_models_are_made_and_code_runs(
    script: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARSEML_DATA", "data")
    rows = [f"a {'good' if number % 2 else 'bad'} film\t{number % 2}" for number in range(64)]
    for file in ("sst2/train.tsv", "sst2/dev.tsv", "mrpc/train.tsv"):
        path = tmp_path / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["sentence\tlabel", *rows, ""]))
    for command in MAKING:
        name, flags = _words(command.replace(".gz", ""))
        script(name).main(flags)
    for line in capsys.readouterr().out.splitlines():
        if "people" in line:
            assert line in README

    small = AutoModelForSequenceClassification.from_pretrained("output/bert-small")
    small.save_pretrained("output/sst2-dense")
    AutoTokenizer.from_pretrained("output/bert-small").save_pretrained("output/sst2-dense")
    # 64 texts are two batches, so nothing but the pace differs
    (tmp_path / "page.py").write_text(SNIPPET.replace('"update_steps": 10', '"update_steps": 1'))
    runpy.run_path("page.py")
    found = AutoModelForSequenceClassification.from_pretrained("output/sst2-python")
    for name, param in found.named_parameters():
        if ".layer." in name and param.ndim == 2:
            assert int((param.reshape(-1, 4) != 0).sum(1).max()) == 2, name
    assert (tmp_path / "output/sst2-python/recipe.yaml").is_file()


def test_the_page_names_only_what_there_is() -> None:
    assert len(TRAINING) >= 6 and len(MAKING) >= 3 and PRUNING and ALONE
    paths = re.findall(r"(?:recipes|integrations|research|docs)/[\w./+-]+\w", README)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path
    known = ready_recipes()
    assert set(re.findall(r"recipe:(transformers/[\w/+]+)", README)) <= known.keys()
    for scripts in re.findall(r"^\| `(\w+\.py)` ", README, re.MULTILINE):
        assert (ROOT / "integrations/huggingface" / scripts).is_file()


def test_the_table_of_recipes_names_all_of_them() -> None:
    table = README[README.index("| recipe | families |") :]
    cells = re.findall(r"^\| (`(?:gradual|one_shot)/.*?) \| (.*?) \|", table, re.MULTILINE)
    named = {(way, family) for ways, families in cells for way in re.findall(r"(\w+/\w+)/", ways)
             for family in re.findall(r"`(\w+)`", families)}  # fmt: skip
    there = {
        ("/".join(name.split("/")[1:3]), name.split("/")[3].split("_")[0])
        for name in ready_recipes()
        if name.startswith("transformers/gradual/")
    }
    assert there <= named
    done = CliRunner().invoke(main, ["recipe", "list", "transformers"])
    assert done.exit_code == 0 and done.stdout.count("transformers/gradual/") >= len(there)
