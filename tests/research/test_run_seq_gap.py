"""The launcher with the flags of the GaP reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    flags = ["--num-steps", "4", "--ep-per-step", "2", "--lr", "0.1", "--extra-cmd", CHILD]
    flags += ["--extra-cmd-parent", "--from {parent}", "--config-folder", "steps"]
    done = run(tmp_path, *flags, "--lr-schedule-across-step", "linear", "--finetune-epochs", "3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    out = tmp_path / "output/gap-3-cyclic-0.8-2"
    assert lines[0] == "step_0: 2 epochs, seed 3, lr 0.1"
    assert lines[1].endswith(f"{out}/step_0 3 2 0.1 --fp16")
    assert lines[3].endswith(f"4 2 0.075 --fp16 --from {out}/step_0/checkpoints/checkpoint_last.pt")
    assert lines[8] == "final: 3 epochs, seed 7, lr 0.1" and not out.exists()
    assert run(tmp_path, "--num-steps", "4").stderr == (
        "error: --extra-cmd must say how to train: flags of sparseml train, or a command\n"
    )
