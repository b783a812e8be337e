"""The launcher with the flags of the GaP reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparseml.fairseq import USER_DIR

pytestmark = pytest.mark.usefixtures("warm")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "research" / "run_seq_gap.py"
CHILD = "child {recipe} {output} {seed} {epochs} {lr}"


def run(folder, *flags):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *flags, "--partition-type", "cyclic", "--dry-run"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip


@pytest.mark.slow
def test_the_flags_of_the_reference(tmp_path):
    (tmp_path / "steps").mkdir()
    for number, (pruned, masked) in enumerate([("b", "b"), ("a", "a")]):
        text = f"rho: 0.001\nprune_ratios: {{{pruned}: 0.9}}\nmasked_layers: {{{masked}: 0.9}}"
        (tmp_path / f"steps/step_{number}.yaml").write_text(text)
    flags = ["--num-steps", "4", "--ep-per-step", "2", "--lr", "0.1", "--child", CHILD]
    flags += ["--extra-cmd", "--more", "--extra-cmd-step0", "--other"]
    flags += ["--extra-cmd-parent", "--from {parent} {masks}", "--config-folder", "steps"]
    done = run(tmp_path, *flags, "--lr-schedule-across-step", "linear", "--finetune-epochs", "3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    out = tmp_path / "output/gap-3-cyclic-0.8-2"
    last = f"{out}/step_0/checkpoints/checkpoint_last.pt {out}/step_0/checkpoints/masks.safetensors"
    assert lines[0] == "step_0: 2 epochs, seed 3, lr 0.1"
    assert lines[1].endswith(f"{out}/step_0 3 2 0.1 --fp16 --other")
    assert lines[3].endswith(f"4 2 0.075 --fp16 --more --from {last}")
    assert lines[8] == "final: 3 epochs, seed 7, lr 0.1" and not out.exists()


@pytest.mark.slow
def test_the_child_is_fairseq_train(tmp_path):
    flags = ["--num-steps", "2", "--warmup", "9", "--extra-cmd", "--max-tokens 9"]
    done = run(tmp_path, "bin", *flags)
    assert done.returncode == 0 and done.stderr == "--warmup has no effect\n"
    first, second = done.stdout.splitlines()[1:4:2]
    assert f"-m fairseq_cli.train bin --user-dir {USER_DIR} --sparseml-recipe " in first
    assert "step_0/checkpoints --seed 3 --max-epoch 5 --lr 0.000846" in first
    assert first.endswith("--amp --max-tokens 9") and "--finetune-from-model" not in first
    assert "--finetune-from-model" in second and "--sparseml-initial-masks" in second
    assert "--amp" not in run(tmp_path, "bin", "--precision", " ").stdout
    assert run(tmp_path, "--num-steps", "4").stderr == (
        "error: DATA must be a folder of fairseq-preprocess, or --child another child\n"
    )
    assert "holds no chain to go on with" in run(tmp_path, "bin", "--resume-from-step", "1").stderr
    assert "invalid choice: 'cosin'" in run(
        tmp_path, "bin", "--lr-schedule-across-step", "cosin"
    ).stderr  # fmt: skip
