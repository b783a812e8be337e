"""``sparseml prune`` and ``sparseml train`` as commands."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sparseml.cli import main, run_commands
from sparseml.cli.problems import Problem
from sparseml.run import RunError


class Watched:
    """A glue that tells what it was given."""

    def one_shot_settings(self, argv: Any, prog: str | None) -> Any:
        raise RunError(f"{prog} {' '.join(argv)}")

    training_settings = one_shot_settings


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call the command, with a glue for models ``own:...`` and timm's replaced."""
    modules = {
        "own.glue": SimpleNamespace(GLUE=Watched()),
        "sparseml.timm.glue": SimpleNamespace(GLUE="timm's"),
    }
    monkeypatch.setitem(run_commands.GLUES, "own", ("json", "own.glue"))
    monkeypatch.setattr(run_commands, "import_module", modules.__getitem__)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments))

    return call


@pytest.mark.parametrize("command", ["prune", "train"])
def test_flags_reach_the_glue_as_they_are(invoke: Any, command: str) -> None:
    flags = ["--model", "own:thing", "-vb", "3", "--help", "--x=1", "--", "--sparsities", "0.5"]
    done = invoke(command, *flags)
    assert done.exit_code == 2
    assert done.stderr == f"error: sparseml {command} {' '.join(flags)}\n"


@pytest.mark.parametrize(
    ("flags", "own"),
    [
        (["--model", "own:thing"], True),
        (["--model=own:a:b"], True),
        (["--model", "x", "--model", "own:thing"], True),
        (["--model", "resnet18"], False),
        (["--model", "timm:resnet18"], False),
        (["--model", "my.module:own"], False),
        (["--model", "own"], False),
        (["--model"], False),
        ([], False),
        (["-c", "own.yaml"], True),
        (["--config=own.yaml"], True),
        (["-c", "own.yaml", "--model", "resnet18"], False),
        (["-c", "none.yaml"], False),
        (["-c", "bad.yaml"], False),
        (["-c", "list.yaml"], False),
    ],
)
def test_the_model_says_whose_it_is(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], own: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("model: own:thing\n")
    Path("bad.yaml").write_text("model: [\n")
    Path("list.yaml").write_text("- model\n")
    assert isinstance(run_commands.find_glue(flags), Watched) == own


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_commands, "find_spec", lambda name: None)
    with pytest.raises(Problem, match=r"needs timm, .* pip install 'sparseml-next\[timm\]'"):
        run_commands.find_glue([])


def test_models_of_transformers_have_flags_of_their_own() -> None:
    pytest.importorskip("transformers")
    assert type(run_commands.find_glue(["--model", "hf:bert"])).__name__ == "TransformersGlue"
    assert type(run_commands.find_glue(["--model", "bert"])).__name__ == "TimmGlue"


def test_models_of_fairseq_have_flags_of_their_own() -> None:
    pytest.importorskip("fairseq")
    assert type(run_commands.find_glue(["--model=fairseq:best.pt"])).__name__ == "FairseqGlue"


def test_help_is_there_with_either_library_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_commands, "find_spec", lambda name: name != "timm" or None)
    assert type(run_commands.find_glue(["--help"])).__name__ == "TransformersGlue"
    with pytest.raises(Problem, match="needs timm"):
        run_commands.find_glue(["--model", "resnet18"])
