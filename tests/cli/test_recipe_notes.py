"""What ``sparseml recipe check`` says of targets that are missed, and of what must be lent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FIELDS = "params: __ALL_PRUNABLE__, start_epoch: 0.0, end_epoch: 4.0, update_frequency: 1.0"
GRADUAL = f"!GMPruningModifier {{init_sparsity: 0.2, final_sparsity: 0.8, {FIELDS}}}"
PARAM = f"!GradualParamModifier {{init_val: 0.0, final_val: 1.0, {FIELDS}}}"


def write(folder: Path, *modifiers: str) -> str:
    items = ("!EpochRangeModifier {start_epoch: 0.0, end_epoch: 4.0}", *modifiers)
    lines = "".join(f"  - {item}\n" for item in items)
    (folder / "r.yaml").write_text(f"modifiers:\n{lines}")
    return "r.yaml"


@pytest.mark.parametrize(
    "modifier",
    [
        f"!ConstantPruningModifier {{{FIELDS}}}",
        f"!GMPruningModifier {{init_sparsity: 0.7, final_sparsity: 0.7, {FIELDS}}}",
        f"!ACDCPruningModifier {{compression_sparsity: 0.7, {FIELDS}}}",
        f"!TopKASTPruningModifier {{forward_sparsity: 0.7, backward_sparsity: 0.5, {FIELDS}}}",
        f"!GradualParamModifier {{init_val: 1.0, final_val: 1.0, {FIELDS}}}",
        "!SetLearningRateModifier {start_epoch: 3.0, learning_rate: 0.1}",
        "!LearningRateFunctionModifier {lr_func: linear, init_lr: 0.1, final_lr: 0.0, "
        "start_epoch: 0.0, end_epoch: 4.0}",
    ],
)
def test_nothing_is_said_where_nothing_is_missed(
    folder: Path, invoke: Any, invoke_json: Any, modifier: str
) -> None:
    path = write(folder, modifier)
    shown = invoke("check", path).stdout
    assert "None" not in shown and "is over" not in shown and "does not get" not in shown
    for entry in invoke_json("check", path)["modifiers"]:
        assert not {"reaches", "never_acts", "late_updates", "frees_at"} & entry.keys()


def test_what_keeps_its_zeros_says_so(folder: Path, invoke: Any) -> None:
    shown = invoke("check", write(folder, f"!ConstantPruningModifier {{{FIELDS}}}")).stdout
    assert "#1 in one shot (manager.apply): keeps zero what is." in shown
    assert "as it is" in shown


def test_a_goal_is_no_sparsity(folder: Path, invoke: Any) -> None:
    fields = FIELDS.replace("__ALL_PRUNABLE__", "__STRUCTURED__")
    goal = f"init_sparsity: 0.0, final_sparsity: {{speedup: 2.0}}, remove: True, {fields}"
    shown = invoke(
        "check", write(folder, f"!StructuredPruningModifier {{{goal}}}"), "--epochs", "5"
    ).stdout
    assert "100.0% of the way" in shown and "sparsity 1" not in shown
    assert "asks for 2.00 times as fast; how many units go for that is found" in shown


@pytest.mark.parametrize(
    ("modifier", "options", "reaches", "said"),
    [
        (GRADUAL, (), {"sparsity": 0.790625, "final_sparsity": 0.8},
            "ends when a run of 4 epochs is over: the last update within it asks for 0.7906, not "
            "for 0.8. End"),
        (GRADUAL, ("--epochs", "5"), None, ""),
        (GRADUAL, ("--epochs", "1"), {"sparsity": 0.2, "final_sparsity": 0.8},
            "ends when a run of 1 epoch is over"),
        (PARAM, (), {"share": 0.75}, "the last update within it goes 0.75 of the way"),
        (PARAM, ("--epochs", "5"), None, ""),
    ],
)  # fmt: skip
def test_targets_that_are_missed(
    folder: Path, invoke: Any, invoke_json: Any, modifier: str, options: Any, reaches: Any,
    said: str
) -> None:  # fmt: skip
    path = write(folder, modifier)
    found = [m for m in invoke_json("check", path, *options)["modifiers"] if "reaches" in m]
    assert [m["reaches"] for m in found] == ([] if reaches is None else [pytest.approx(reaches)])
    shown = invoke("check", path, *options).stdout
    assert (said in shown) if said else ("is over" not in shown)


def test_what_a_run_never_gets_to(folder: Path, invoke: Any, invoke_json: Any) -> None:
    path = write(
        folder,
        "!SetLearningRateModifier {start_epoch: 4.0, learning_rate: 0.1}",
        "!LayerThinningModifier {param_group_dependency_map: {first.weight: [second.weight]}, "
        "structure_type: filter, update_epochs: [1.0, 4.0], start_epoch: 0.0}",
    )
    found = {m["modifier"]: m for m in invoke_json("check", path)["modifiers"]}
    assert found["SetLearningRateModifier"]["never_acts"]
    assert found["LayerThinningModifier"]["late_updates"] == [4.0]
    shown = invoke("check", path).stdout
    assert "never acts: a run of 4 epochs is over before it starts." in shown
    assert "does not get to its update at epoch 4: a run has 4 epochs." in shown


def test_masks_that_are_let_go_of(folder: Path, invoke: Any, invoke_json: Any) -> None:
    modifier = GRADUAL.replace("end_epoch: 4.0", "end_epoch: 2.0, leave_enabled: False")
    path = write(folder, modifier)
    assert "ends at epoch 2 and lets go of its masks" in invoke("check", path).stdout
    call = ("check", path, "--model", "own_code:Network")
    assert invoke_json(*call)["coverage"]["sparsity"] == 0.0
    holder = "!ConstantPruningModifier {params: __ALL_PRUNABLE__, start_epoch: 2.0}"
    write(folder, modifier, holder)
    assert invoke_json(*call)["coverage"]["layer_sparsity"] == pytest.approx(0.8)


NEEDS = [
    (f"!CAPruningModifier {{init_sparsity: 0.2, final_sparsity: 0.8, {FIELDS}}}", "grad_sampler"),
    (f"!FastCAPruningModifier {{init_sparsity: 0.2, final_sparsity: 0.8, {FIELDS}}}",
        "grad_sampler"),
    (f"!OBSPruningModifier {{init_sparsity: 0.2, final_sparsity: 0.8, {FIELDS}}}", "grad_sampler"),
    (f"!MFACPruningModifier {{init_sparsity: 0.2, final_sparsity: 0.8, {FIELDS}}}",
        "grad_sampler"),
    (f"!RigLPruningModifier {{final_sparsity: 0.8, {FIELDS}}}", "grad_sampler"),
    ("!DistillationModifier {start_epoch: 0.0}", "distillation_teacher"),
    ("!PerLayerDistillationModifier {start_epoch: 0.0}", "distillation_teacher"),
    (f"!MFACPruningModifier {{init_sparsity: 0.2, final_sparsity: 0.8, {FIELDS}, "
        "use_gradient_buffering: True}", None),
    (GRADUAL, None),
]  # fmt: skip


@pytest.mark.parametrize(("modifier", "needed"), NEEDS)
def test_what_must_be_lent(
    folder: Path, invoke: Any, invoke_json: Any, modifier: str, needed: str | None
) -> None:
    path = write(folder, modifier)
    found = [name for m in invoke_json("check", path)["modifiers"] for name in m.get("needs", ())]
    assert found == ([] if needed is None else [needed])
    result = invoke("check", path)
    assert result.exit_code == 0
    assert ("Give manager.modify, initialize or apply" in result.stdout) == bool(needed)
    assert (f"{needed}=" in result.stdout) == bool(needed)
