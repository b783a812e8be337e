"""Names and flags of the first implementation of SRP, in fairseq's own commands."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fairseq_cli import generate

from sparseml.fairseq import USER_DIR
from sparseml.fairseq.translating import generator_of

SIZES = "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 "
SIZES += "--encoder-ffn-embed-dim 24 --decoder-ffn-embed-dim 24 --encoder-attention-heads 2 "
SIZES += "--decoder-attention-heads 2 --share-decoder-input-output-embed"
MODEL = f"--task SRPtranslation --arch srp {SIZES} --criterion srp --label-smoothing 0.1"
LEARNING = "--optimizer srp_adam --lr 0.01 --lr-scheduler fixed"
SRP = "--srp --compression-rate 0.4 --pruning-period 1 --weighted-layernorm"


def _train(fairseq: Any, save: str, flags: str = "") -> Any:
    if "--max-epoch" not in flags:
        flags += " --max-epoch 1"
    return fairseq.train(save, flags, None, model=MODEL, learning=LEARNING)


def _widths(fairseq: Any, folder: Any) -> tuple[int, int]:
    weights = fairseq.read(folder / "checkpoint_last.pt")["model"]
    return (
        weights["encoder.embed_tokens.weight"].shape[1],
        weights["encoder.layers.0.self_attn.v_proj.weight"].shape[0],
    )


def test_stages_in_runs_of_their_own(fairseq: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """And one that begins with the checkpoint of another stage."""
    dense = _train(fairseq, "dense")
    assert _widths(fairseq, dense) == (16, 16)
    one = f"{SRP} --pruning-stage 1 --pretrained-model dense/checkpoint_last.pt"
    assert _widths(fairseq, _train(fairseq, "one", one)) == (9, 16)
    two = f"{SRP} --pruning-stage 2 --pretrained-model one/checkpoint_last.pt --decreasing sg"
    assert _widths(fairseq, _train(fairseq, "two", two)) == (9, 8)
    tuned = _train(fairseq, "tuned", "--pretrained-model two/checkpoint_last.pt")
    assert _widths(fairseq, tuned) == (9, 8)
    capsys.readouterr()
    for flags, told in {
        two.replace("one/", "dense/"): "checkpoint of stage 1; checkpoint_last.pt has lost nothing",
        two.replace("one/", "two/"): "has lost the stream and all inside of blocks",
        one.replace("dense/", "one/"): "with a whole model; checkpoint_last.pt has lost the stream",
    }.items():
        with pytest.raises(SystemExit):
            _train(fairseq, "none", flags)
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "1.5"])
def test_wrong_rates_are_told_in_a_line(
    fairseq: Any, capsys: pytest.CaptureFixture[str], rate: str
) -> None:
    _train(fairseq, "dense")
    flags = SRP.replace("0.4", rate) + " --pretrained-model dense/checkpoint_last.pt"
    with pytest.raises(SystemExit):
        _train(fairseq, "out", flags)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert f"the share of the parameters to keep, above 0 and at most 1, found {rate}" in lines[0]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (SRP, "--srp shrinks a model that is trained: give --pretrained-model"),
        (f"{SRP} --sparseml-recipe gap.yaml", "--srp stands for a recipe"),
        (f"{SRP} --pretrained-model none.pt", "--pretrained-model none.pt: no such file"),
    ],
)
def test_flags_that_do_not_go_together(
    fairseq: Any, capsys: pytest.CaptureFixture[str], flags: str, told: str
) -> None:
    with pytest.raises(SystemExit):
        _train(fairseq, "out", flags)
    assert told in capsys.readouterr().err


def test_the_script_removes_at_once_without_the_flag(
    fairseq: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = _train(fairseq, "dense")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "research/srp"))
    given = [str(fairseq.data["pairs"]), "--pretrained-model", str(dense / "checkpoint_last.pt")]
    flags = ["--compression-rate", "0.4", "--save-dir", "once", "--arch", "srp"]
    assert importlib.import_module("pruning").main([*given, *flags]) == 0
    assert _widths(fairseq, fairseq.folder / "once") == (9, 8)


def test_it_translates_by_fairseq_generate(
    fairseq: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After removal as in the model that was trained."""
    _train(fairseq, "dense")
    flags = f"{SRP} --pretrained-model dense/checkpoint_last.pt"
    _train(fairseq, "out", flags)
    run, _ = fairseq.runs[-1]
    # another process knows the names, too
    command = "from sparseml.fairseq import load_model; load_model(*__import__('sys').argv[1:])"
    argv = ["fairseq:out/checkpoint_last.pt", str(fairseq.data["pairs"])]
    subprocess.run([sys.executable, "-W", "ignore", "-c", command, *argv], check=True)
    capsys.readouterr()
    argv = [str(fairseq.data["pairs"]), "--path", "out/checkpoint_last.pt", "--cpu"]
    argv += ["--gen-subset", "valid", "--user-dir", str(USER_DIR), "--beam", "3"]
    monkeypatch.setattr(sys, "argv", ["fairseq-generate", *argv, "--max-len-b", "12"])
    generate.cli_main()
    out = capsys.readouterr().out
    told = dict(re.findall(r"^H-(\d+)\t\S+\t(.*)$", out, re.MULTILINE))
    assert len(told) == 16
    task, model = run.trainer.task, run.trainer.get_model().eval()
    generator = generator_of(task, model, beam=3, max_len_b=12)
    dataset = task.dataset("valid")
    for number in range(16):
        batch = dataset.collater([dataset[number]])
        best = task.inference_step(generator, [model], batch)[0][0]["tokens"]
        assert task.target_dictionary.string(best) == told[str(number)]
