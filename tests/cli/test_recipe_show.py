"""``sparseml recipe show`` and ``sparseml recipe chain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparseml.pytorch.optim import ScheduledModifierManager


def test_show_prints_what_is_run(folder: Path, invoke: Any) -> None:
    shown = invoke("show", "gradual.yaml", "--recipe-args", '{"final": 0.7}')
    manager = ScheduledModifierManager.from_yaml("gradual.yaml", recipe_variables={"final": 0.7})
    assert shown.stdout == str(manager)
    assert "final_sparsity: 0.7" in shown.stdout


def test_what_is_shown_is_a_recipe(folder: Path, invoke: Any) -> None:
    (folder / "again.yaml").write_text(invoke("show", "gradual.yaml").stdout)
    again = invoke("show", "again.yaml").stdout
    assert again.splitlines()[-8:] == invoke("show", "gradual.yaml").stdout.splitlines()[-8:]


def test_show_as_json(invoke_json: Any) -> None:
    found = invoke_json("show", "gradual.yaml")
    assert [m["modifier"] for m in found["modifiers"]] == [
        "MagnitudePruningModifier",
        "EpochRangeModifier",
    ]
    assert found["modifiers"][1]["fields"] == {"start_epoch": 0.0, "end_epoch": 4.0}
    assert found["text"].startswith("version: 1.1.0")


OLD_AND_NEW = ("compose", "chain")


def test_unknown_variables_are_named(invoke: Any) -> None:
    failed = invoke("show", "gradual.yaml", "--recipe-args", "fnal=0.7")
    assert failed.exit_code == 2
    assert "did you mean 'final'" in failed.stderr


def test_chain_prints_or_writes_the_same(folder: Path, invoke: Any) -> None:
    printed = invoke("chain", "gradual.yaml", "gradual.yaml").stdout
    done = invoke("chain", "gradual.yaml", "gradual.yaml", "-o", "new/both.yaml")
    assert (done.exit_code, done.stdout) == (0, "")
    assert (folder / "new" / "both.yaml").read_text() == printed
    assert ScheduledModifierManager.from_yaml("new/both.yaml").max_epochs == 8


def test_chain_still_goes_by_its_old_name(invoke: Any) -> None:
    old, new = (invoke(name, "gradual.yaml", "gradual.yaml").stdout for name in OLD_AND_NEW)
    assert old == new
    assert "chain" in invoke("--help").stdout and "compose" not in invoke("--help").stdout


def test_chain_can_keep_the_epochs(invoke: Any, invoke_json: Any) -> None:
    found = invoke_json("chain", "gradual.yaml", "gradual.yaml", "--keep-original-epochs")
    ends = [m["fields"]["end_epoch"] for m in found["modifiers"]]
    assert sorted(ends) == [3.0, 3.0, 4.0, 4.0]


def test_recipes_that_cannot_be_combined(folder: Path, invoke: Any) -> None:
    invoke("chain", "gradual.yaml", "gradual.yaml", "-o", "both.yaml")
    failed = invoke("chain", "both.yaml", "both.yaml")
    assert failed.exit_code == 2
    assert "stage_0" in failed.stderr and failed.stderr.count("\n") == 1


def test_chain_does_not_write_where_it_cannot(folder: Path, invoke: Any) -> None:
    (folder / "file").write_text("")
    for output in ("both.txt", "file/both.yaml"):
        failed = invoke("chain", "gradual.yaml", "gradual.yaml", "-o", output)
        assert failed.exit_code == 2
        assert failed.stderr.startswith(f"--output {output}: ")


def test_chain_names_the_recipe_that_is_bad(folder: Path, invoke: Any) -> None:
    failed = invoke("chain", "gradual.yaml", "missing.yaml")
    assert failed.exit_code == 2
    assert failed.stderr.startswith("missing.yaml: ")
