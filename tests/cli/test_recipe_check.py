"""``sparseml recipe check`` without a model: what is valid, and what happens when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparseml.pytorch.functional.schedules import scheduled_sparsity


def modifier(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(m for m in found["modifiers"] if m["modifier"] == name)


def test_timeline_of_a_gradual_recipe(invoke_json: Any) -> None:
    found = invoke_json("check", "gradual.yaml", "--steps-per-epoch", "10")
    assert found["valid"] and found["epochs"] == 4
    assert not found["steps_per_epoch_assumed"]
    updates = modifier(found, "MagnitudePruningModifier")["updates"]
    assert [(u["step"], u["epoch"], u["kind"]) for u in updates] == [
        (10, 1.0, "start"),
        (15, 1.5, "update"),
        (20, 2.0, "update"),
        (25, 2.5, "update"),
        (30, 3.0, "end"),
    ]
    expected = [scheduled_sparsity(u["epoch"], 1.0, 3.0, 0.2, 0.8, "linear") for u in updates]
    assert [u["sparsity"] for u in updates] == expected
    assert expected[0] == 0.2 and expected[-1] == 0.8


def test_recipe_args_change_the_timeline(invoke_json: Any) -> None:
    found = invoke_json("check", "gradual.yaml", "--recipe-args", "final=0.6,num_epochs=5")
    pruner = modifier(found, "MagnitudePruningModifier")
    assert pruner["updates"][-1]["sparsity"] == pruner["one_shot_sparsity"] == 0.6
    assert found["epochs"] == 5


def test_frequencies_that_are_no_multiple_of_a_step_drift_as_in_training(
    folder: Path, invoke_json: Any
) -> None:
    text = (folder / "gradual.yaml").read_text().replace("0.5\n", "0.25\n")
    (folder / "drifting.yaml").write_text(text)
    found = invoke_json("check", "drifting.yaml", "--steps-per-epoch", "10")
    updates = modifier(found, "MagnitudePruningModifier")["updates"]
    assert [u["step"] for u in updates] == [10, 13, 16, 19, 22, 25, 28, 30]


def test_what_acts_at_every_step_is_one_entry(folder: Path, invoke_json: Any) -> None:
    (folder / "rates.yaml").write_text(
        "modifiers:\n"
        "  - !LearningRateFunctionModifier {start_epoch: 0.0, end_epoch: 2.0, lr_func: linear,"
        " init_lr: 0.1, final_lr: 0.0}\n"
    )
    found = invoke_json("check", "rates.yaml", "--steps-per-epoch", "5")
    updates = found["modifiers"][0]["updates"]
    assert [(u["kind"], u["step"], u.get("until_step")) for u in updates] == [
        ("start", 0, None),
        ("every step", 1, 9),
        ("end", 10, None),
    ]
    assert updates[-1]["after_training"]


def test_an_end_that_training_does_not_reach_is_pointed_out(folder: Path, invoke: Any) -> None:
    text = (folder / "gradual.yaml").read_text().replace("eval(num_epochs)", "3.0")
    (folder / "late.yaml").write_text(text)
    shown = invoke("check", "late.yaml").stdout
    assert "#2 ends when a run of 3 epochs is over" in shown
    assert "asks for 0.65" in shown
    assert "is over" not in invoke("check", "gradual.yaml").stdout


def test_steps_need_the_steps_of_an_epoch(folder: Path, invoke: Any, invoke_json: Any) -> None:
    text = (folder / "gradual.yaml").read_text()
    for old, new in {"start_epoch: 1.0": "start_step: 7", "end_epoch: 3.0": "end_step: 20"}.items():
        text = text.replace(old, new)
    (folder / "steps.yaml").write_text(text.replace("update_frequency: 0.5", "update_steps: 6"))
    failed = invoke("check", "steps.yaml")
    assert failed.exit_code == 2
    assert failed.stderr.startswith("steps.yaml: the schedule of MagnitudePruningModifier")
    assert "--steps-per-epoch" in failed.stderr
    found = invoke_json("check", "steps.yaml", "--steps-per-epoch", "10")
    updates = modifier(found, "MagnitudePruningModifier")["updates"]
    assert [u["step"] for u in updates] == [7, 13, 19, 20]


def test_too_many_steps_to_go_through(folder: Path, invoke: Any) -> None:
    failed = invoke("check", "gradual.yaml", "--steps-per-epoch", "1000000000")
    assert failed.exit_code == 2
    assert "too many" in failed.stderr


def test_stages_are_named(folder: Path, invoke: Any, invoke_json: Any) -> None:
    assert invoke("chain", "gradual.yaml", "gradual.yaml", "-o", "both.yaml").exit_code == 0
    found = invoke_json("check", "both.yaml")
    assert [m["stage"] for m in found["modifiers"]] == ["stage_0"] * 2 + ["stage_1"] * 2
    assert found["epochs"] == 8
    assert "stage_1: MagnitudePruningModifier" in invoke("check", "both.yaml").stdout


def test_table_for_people(invoke: Any) -> None:
    shown = invoke("check", "gradual.yaml").stdout
    for text in (
        "MagnitudePruningModifier",
        "100 steps per epoch are assumed",
        "0.35",
        "in one sh",
    ):
        assert text in shown
    assert "\x1b" not in shown


def test_long_timelines_are_shortened_unless_all_is_asked_for(invoke: Any, folder: Path) -> None:
    text = (folder / "gradual.yaml").read_text().replace("0.5\n", "0.1\n")
    (folder / "long.yaml").write_text(text)
    short, full = invoke("check", "long.yaml").stdout, invoke("check", "long.yaml", "--all").stdout
    assert "9 more updates" in short and "more updates" not in full
    assert full.count("update ") - short.count("update ") == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modifiers:\n  - !EpochRangeModifer {start_epoch: 0.0, end_epoch: 1.0}\n", "bad.yaml:2: "),
        ("modifiers:\n  - !EpochRangeModifier\n    start_epoch: 0.0\n    end: 1\n", "bad.yaml:4: "),
        ("a: eval(b)\nb: eval(a)\nmodifiers:\n  - !EpochRangeModifier\n", "bad.yaml:"),
        ("\tmodifiers: []\n", "bad.yaml:1: "),
        ("", "bad.yaml"),
    ],
)
def test_bad_recipes(folder: Path, invoke: Any, text: str, message: str) -> None:
    (folder / "bad.yaml").write_text(text)
    failed = invoke("check", "bad.yaml")
    assert failed.exit_code == 2
    assert failed.stdout == ""
    assert failed.stderr.startswith(message)
    assert failed.stderr.count("\n") == 1


def test_errors_as_json(folder: Path, invoke: Any) -> None:
    (folder / "bad.yaml").write_text("modifiers:\n  - !Nothing {a: 1}\n")
    failed = invoke("check", "bad.yaml", "--json")
    assert failed.exit_code == 2
    found = json.loads(failed.stdout)
    assert found["valid"] is False
    assert (found["error"]["file"], found["error"]["line"]) == ("bad.yaml", 2)
    assert "!Nothing" in found["error"]["message"]


@pytest.mark.parametrize("path", ["missing.yaml", ".", "gradual.txt", "zoo:some/model", ""])
def test_paths_that_are_no_recipe(invoke: Any, path: str) -> None:
    failed = invoke("check", path)
    assert failed.exit_code == 2
    assert failed.stderr.count("\n") == 1


def test_binary_file(folder: Path, invoke: Any) -> None:
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    failed = invoke("check", "binary.yaml")
    assert failed.exit_code == 2
    assert "UTF-8" in failed.stderr


@pytest.mark.parametrize("steps", ["0", "-3", "many"])
def test_bad_steps_per_epoch(invoke: Any, steps: str) -> None:
    failed = invoke("check", "gradual.yaml", "--steps-per-epoch", steps)
    assert failed.exit_code == 2
    assert "--steps-per-epoch" in failed.stderr


INERT = """modifiers:
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 2.0}
  - !QuantizationModifier {start_epoch: 0.0}
"""


def test_what_is_loaded_and_cannot_run_is_said(folder: Path, invoke: Any) -> None:
    (folder / "inert.yaml").write_text(INERT)
    result = invoke("check", "inert.yaml")
    assert result.exit_code == 2
    assert "#2 is loaded and cannot run: quantization is not part of this package" in result.stdout
    assert result.stderr.startswith("inert.yaml: !QuantizationModifier is loaded and cannot run")
    assert len(result.stderr.splitlines()) == 1 and "--allow-inert" in result.stderr
    assert invoke("check", "inert.yaml", "--allow-inert").exit_code == 0


def test_what_cannot_run_in_json(folder: Path, invoke: Any, invoke_json: Any) -> None:
    (folder / "inert.yaml").write_text(INERT)
    result = invoke("check", "inert.yaml", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 2 and not found["valid"]
    assert found["error"]["kind"] == "inert" and found["error"]["modifiers"] == [2]
    assert "inert" not in found["modifiers"][0] and "updates" not in found["modifiers"][1]
    allowed = invoke_json("check", "inert.yaml", "--allow-inert")
    assert allowed["valid"] and "not part of this package" in allowed["modifiers"][1]["inert"]


def test_repeated_keys_are_errors(folder: Path, invoke: Any) -> None:
    text = (folder / "gradual.yaml").read_text()
    (folder / "twice.yaml").write_text(text.replace("final: 0.8\n", "final: 0.8\nfinal: 0.9\n"))
    result = invoke("check", "twice.yaml")
    assert result.exit_code == 2
    message = "twice.yaml:3: the key 'final' occurs twice, in line 2 and in line 3"
    assert result.stderr.strip() == message
    assert invoke("show", "twice.yaml").exit_code == 0
