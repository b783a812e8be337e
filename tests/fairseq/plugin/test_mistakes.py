"""What the user gets wrong in fairseq is told in one line, before anything is trained."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from sparseml.fairseq import __main__ as command

GRADUAL = """
modifiers:
  - !{kind}
      params: {params}
      init_sparsity: 0.1
      final_sparsity: 0.5
      start_epoch: 0.0
      end_epoch: 2.0
      update_frequency: 1.0
"""
CASES = {
    "no file": ("none.yaml", "", "none.yaml: the recipe does not exist"),
    "no recipe": ("text.yaml", "", "text.yaml"),
    "too long": (
        "gap.yaml",
        "--max-epoch 2",
        "gap.yaml goes on until epoch 3, for 18 updates of which 6 make an epoch, but the run ends "
        "after 12 updates (epoch 2)",
    ),
    "too few updates": ("gap.yaml", "--max-update 5", "the run ends after 5 updates"),
    "nothing matches": (
        "nothing.yaml",
        "",
        "GMPruningModifier: pattern 're:nowhere.*' matches no parameter",
    ),
    "sampling": (
        "sampling.yaml",
        "--fp16 --fp16-no-flatten-grads",
        "OBSPruningModifier samples gradients, of which float16 loses the small ones",
    ),
    "shrinking": ("shrinking.yaml", "--store-ema", "does not work with --store-ema"),
    "shrinking copies": (
        "shrinking.yaml",
        "--fp16 --fp16-no-flatten-grads",
        "does not work with --fp16, which keeps copies in float32: take --amp",
    ),
    "distillation": ("teacher.yaml", "", "DistillationModifier changes the loss"),
    "layers": ("layers.yaml", "", "LayerPruningModifier changes the layers"),
    "sharded": ("gap.yaml", "--ddp-backend fully_sharded", "--ddp-backend fully_sharded"),
    "slowmo": ("gap.yaml", "--ddp-backend slowmo", "take legacy_ddp (no_c10d) or pytorch_ddp"),
    "processes": ("gap.yaml", "--distributed-world-size 2 --distributed-port 1", "for each GPU"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_one_line(
    fairseq: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    recipe, flags, told = CASES[case]
    fairseq.write("text.yaml", "just words")
    fairseq.write(
        "nothing.yaml", GRADUAL.format(kind="GMPruningModifier", params="['re:nowhere.*']")
    )
    layers = f"[{fairseq.layers}]"
    fairseq.write("sampling.yaml", GRADUAL.format(kind="OBSPruningModifier", params=layers))
    fairseq.write(
        "shrinking.yaml",
        "modifiers:\n  - !SRPPruningModifier {compression_rate: 0.5, start_epoch: 0, end_epoch: 2}",
    )
    fairseq.write("teacher.yaml", "modifiers:\n  - !DistillationModifier {start_epoch: 0.0}\n")
    fairseq.write(
        "layers.yaml",
        "modifiers:\n  - !LayerPruningModifier {layers: ['encoder.layers.0.fc1'], end_epoch: 1}\n",
    )
    monkeypatch.setattr(
        "fairseq.trainer.Trainer.train_step", lambda *_: pytest.fail("it was trained")
    )
    monkeypatch.setattr("fairseq.trainer.Trainer.is_fsdp", False)
    flags = flags if "--max" in flags else f"{flags} --max-epoch 3"
    with pytest.raises(SystemExit) as ended:
        fairseq.train("out", flags, recipe)
    assert ended.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and told in errors[0]


def test_without_fairseq_one_is_told_where_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"on Python 3\.11 or 3\.12, for which ve-fairseq has it"):
        command.main()
    monkeypatch.undo()
    command.main()
    assert capsys.readouterr().out.endswith("sparseml_plugin\n")


def test_a_checkpoint_of_another_run(
    fairseq: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Without a recipe, of another recipe, of none, or to begin anew from."""
    quick = "--disable-validation"
    folder = fairseq.train("out", f"--max-epoch 3 {quick}")
    fairseq.train("out", f"--max-epoch 4 {quick}", None)
    assert "without --sparseml-recipe its pruned weights do not stay zero" in caplog.text
    assert not fairseq.sparse(folder / "checkpoint_last.pt")
    # a training of no recipe: its weights are pruned from the start
    caplog.clear()
    fairseq.train("out", f"--max-epoch 7 {quick}")
    assert "gap.yaml begins at its start: the checkpoint gives the weights" in caplog.text
    assert fairseq.runs[-1][1].epoch == pytest.approx(3.0)
    assert fairseq.sparse(folder / "checkpoint7.pt") and not fairseq.sparse(
        folder / "checkpoint6.pt"
    )
    # another recipe
    other = fairseq.write("other.yaml", fairseq.gap.replace("0.75", "0.5"))
    with pytest.raises(SystemExit):
        fairseq.train("out", f"--max-epoch 9 {quick}", other)
    assert "the checkpoint is of another recipe than other.yaml" in capsys.readouterr().err
    # which may begin anew
    fairseq.train("new", f"--max-epoch 3 --finetune-from-model out/checkpoint7.pt {quick}", other)
    assert fairseq.runs[-1][1].epoch == pytest.approx(3.0)
    # without what the optimizer knows, the recipe goes on
    fairseq.train("out", f"--max-epoch 8 --reset-optimizer {quick}")
    assert fairseq.sparse(folder / "checkpoint_last.pt")
    assert fairseq.runs[-1][1].epoch == pytest.approx(4.0)
