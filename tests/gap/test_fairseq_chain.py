"""Chains of fairseq-train, as the launcher with the reference's flags starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparseml.fairseq import USER_DIR
from sparseml.gap.child import read_weights
from sparseml.run.masks import read_masks

pytest.importorskip("fairseq")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm", "quick_hydra")]

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--cpu --arch transformer --encoder-layers 2 --decoder-layers 1 --encoder-embed-dim 8 "
    "--decoder-embed-dim 8 --encoder-ffn-embed-dim 12 --decoder-ffn-embed-dim 12 "
    "--encoder-attention-heads 2 --decoder-attention-heads 2 --dropout 0.0 --max-tokens 24 "
    "--required-batch-size-multiple 1 --lr-scheduler fixed --warmup-updates 0"
)
MATRICES = 2 * 6 + 10


def call(*words, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, warmly):
    """A folder of fairseq-preprocess; no two sentences have the same length, so no batch differs
    by the seed."""
    folder = tmp_path_factory.mktemp("corpus")
    for split, lengths in {"train": range(2, 9), "valid": range(2, 4)}.items():
        for side, letter in {"en": "a", "de": "b"}.items():
            lines = [" ".join(f"{letter}{n % 5}" for n in range(length)) for length in lengths]
            (folder / f"{split}.{side}").write_text("\n".join(lines) + "\n")
    words = "-s en -t de --trainpref train --validpref valid --destdir bin --joined-dictionary"
    with warmly():
        done = call("-m", "fairseq_cli.preprocess", *words.split(), "--workers", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def launch(corpus, cwd, *flags, extra=TINY):
    given = ["--partition-type", "cyclic", "--num-steps", "3", "--ep-per-step", "1"]
    given += ["--sparsity", "0.75", "--lr", "0.01", "--precision", "fp32", "--seed", "5"]
    given += ["--global-workspace", "out", "--extra-cmd", extra, *flags]
    return call(str(ROOT / "research/run_seq_gap.py"), str(corpus), *given, cwd=cwd)


def test_a_chain_of_fairseq_equals_one_run(corpus, tmp_path):
    done = launch(corpus, tmp_path, "--finetune-epochs", "1")
    assert done.returncode == 0, done.stderr + "".join(
        log.read_text()[-2000:] for log in (tmp_path / "out").glob("*.log")
    )
    entries = json.loads((tmp_path / "out/manifest.json").read_text())["steps"]
    assert [entry["state"] for entry in entries] == ["done"] * 4
    weights = read_weights(Path(entries[-1]["checkpoint"]))
    masks = read_masks(tmp_path / "out/final/checkpoints/masks.safetensors")
    assert len(masks) == MATRICES
    for name, mask in masks.items():
        assert int((~mask).sum()) == round(0.75 * mask.numel())
        assert not weights[name][~mask].any()
    # epoch q + 1 of seed s is in the order of the first epoch of seed s + q
    (tmp_path / "one.yaml").write_text(
        "m_modifiers: [!GaPPruningModifier {params: "
        f"{json.dumps(sorted(masks))}, final_sparsity: 0.75, num_steps: 3, update_frequency: 1.0, "
        "final_prune: false}]"
    )
    log = (tmp_path / "out/step_0.log").read_text().splitlines()[0]
    words = log.replace("'", "").split()[2:]
    for flag, value in {
        "--sparseml-recipe": "one.yaml",
        "--save-dir": "one",
        "--max-epoch": "3",
    }.items():
        words[words.index(flag) + 1] = value
    one = call(*words, cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    whole = read_weights(tmp_path / "one/checkpoint_last.pt")
    chained = read_weights(tmp_path / "out/step_2/checkpoints/checkpoint_last.pt")
    assert all(torch.equal(value, chained[name]) for name, value in whole.items())


def test_workers_of_fairseq_are_merged(corpus, tmp_path):
    flags = ["--partition-type", "parallel", "--num-steps", "1", "--num-parts", "2"]
    done = launch(corpus, tmp_path, *flags, "--finetune-epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "step_0: 2 workers merged" in done.stdout
    merged = read_weights(tmp_path / "out/step_0/merged.pt")
    workers = [
        read_weights(tmp_path / f"out/step_0/worker_{n}/checkpoints/checkpoint_last.pt")
        for n in range(2)
    ]
    owner = json.loads((tmp_path / "out/step_0/merged.json").read_text())["owner"]
    assert set(owner) == set(merged) == set(workers[0])
    for name, worker in owner.items():
        assert torch.equal(merged[name], workers[worker or 0][name])
    assert sum(worker is not None for worker in owner.values()) == MATRICES
    final = read_weights(tmp_path / "out/final/checkpoints/checkpoint_last.pt")
    masks = read_masks(tmp_path / "out/final/checkpoints/masks.safetensors")
    assert {round(int((final[n] == 0).sum()) / m.numel(), 2) for n, m in masks.items()} <= {
        0.75,
        0.76,
    }


def test_masks_of_another_model_and_a_step_that_fails(corpus, tmp_path):
    done = launch(corpus, tmp_path, extra=f"{TINY} --criterion none")
    assert done.returncode == 2 and "step_0 has failed with status" in done.stderr
    entries = json.loads((tmp_path / "out/manifest.json").read_text())["steps"]
    assert [entry["state"] for entry in entries] == ["failed", *["pending"] * 3]
    assert not (tmp_path / "out/step_1").exists()
    recipe = tmp_path / "out/recipes/step_0.yaml"
    words = ["-m", "fairseq_cli.train", str(corpus), "--user-dir", str(USER_DIR), *TINY.split()]
    words += ["--sparseml-recipe", str(recipe), "--optimizer", "adam", "--lr", "0.1"]
    words += ["--max-epoch", "1", "--save-dir", "new"]
    wrong = call(*words, "--sparseml-initial-masks", "nowhere", cwd=tmp_path)
    assert wrong.returncode == 2 and not (tmp_path / "new/checkpoint_last.pt").exists()
    assert wrong.stderr.splitlines()[-1] == (
        "error: --sparseml-initial-masks nowhere: no such file or folder"
    )
