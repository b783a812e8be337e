"""A recipe in fairseq's own training: masks, counting, resuming, the best checkpoint."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from fairseq.tasks.fairseq_task import FairseqTask


def test_weights_are_masked_in_the_forward_pass_of_every_update(
    fairseq: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where attention hands weights straight to a function of torch."""
    attend, fast, kept = torch.nn.functional.multi_head_attention_forward, [], []

    def seen(*args: Any, **kwargs: Any) -> Any:
        fast.append([float((kwargs[f"{n}_proj_weight"] == 0).double().mean()) for n in "qkv"])
        return attend(*args, **kwargs)

    step = FairseqTask.train_step

    def watched(task: Any, sample: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        weights = {n: p for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2}
        kept.append({name: (param != 0).clone() for name, param in weights.items()})
        return step(task, sample, model, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "multi_head_attention_forward", seen)
    monkeypatch.setattr(FairseqTask, "train_step", watched)
    folder = fairseq.train("out", "--max-epoch 3 --disable-validation")
    assert fairseq.sparse(folder / "checkpoint_last.pt")
    assert not fairseq.sparse(folder / "checkpoint2.pt")
    table = fairseq.read(folder / "checkpoint_last.pt")["model"]["encoder.embed_tokens.weight"]
    assert not (table == 0).any()
    # in each update but the first of a step just one partition is dense, at the same places
    steps = [kept[1:6], kept[7:12], kept[13:18]]
    assert len(kept) == 18 and fast
    for updates in steps:
        dense = [{n for n, k in update.items() if k.double().mean() > 0.9} for update in updates]
        assert all(one == dense[0] for one in dense)
        for name in kept[0].keys() - dense[0]:
            masks = [update[name] for update in updates]
            assert masks[0].sum() == masks[0].numel() - round(0.75 * masks[0].numel())
            assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert any(share > 0.7 for shares in fast for share in shares)


@pytest.mark.parametrize("where", ["checkpoint_2_8.pt", "checkpoint2.pt"])
def test_a_run_that_goes_on_comes_to_the_same_bits(fairseq: Any, where: str) -> None:
    whole = fairseq.train("whole", "--max-epoch 4 --save-interval-updates 8")
    (fairseq.folder / "part").mkdir()
    shutil.copy(whole / where, fairseq.folder / "part" / "checkpoint_last.pt")
    part = fairseq.train("part", "--max-epoch 4")
    assert fairseq.equal(whole / "checkpoint_last.pt", part / "checkpoint_last.pt")
    assert fairseq.sparse(part / "checkpoint_last.pt")


def test_only_updates_count(fairseq: Any) -> None:
    """Of epochs with several batches to an update, and of different numbers of updates."""
    fairseq.train("out", "--max-epoch 4 --update-freq 1,2,3 --disable-validation")
    run, position = fairseq.runs[0]
    updates = run.trainer.get_num_updates()
    assert updates == 6 + 3 + 2 + 2
    assert position.epoch == pytest.approx(4.0)
    assert fairseq.sparse(fairseq.folder / "out" / "checkpoint4.pt")
    assert not fairseq.sparse(fairseq.folder / "out" / "checkpoint3.pt")


def test_a_run_may_end_by_updates(fairseq: Any) -> None:
    folder = fairseq.train("out", "--max-update 18 --disable-validation")
    assert fairseq.sparse(folder / "checkpoint_last.pt")


def test_what_overflows_is_no_update(fairseq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self, *_: self)  # which fairseq asks for
    flags = "--fp16 --fp16-no-flatten-grads --fp16-init-scale 65536 --max-epoch 4"
    folder = fairseq.train("out", f"{flags} --disable-validation")
    run, position = fairseq.runs[0]
    assert run.trainer.get_num_updates() < 24
    assert position.steps == run.trainer.get_num_updates()
    assert fairseq.sparse(folder / "checkpoint_last.pt")


def test_the_best_checkpoint_is_sparse(fairseq: Any) -> None:
    """And early stopping waits for it."""
    folder = fairseq.train(
        "out", "--max-epoch 6 --patience 1 --no-epoch-checkpoints", learning=STILL
    )
    assert fairseq.sparse(folder / "checkpoint_best.pt")
    run, position = fairseq.runs[0]
    assert position.epoch == pytest.approx(5.0)  # the second one of a sparse model is no better
    assert run.trainer.cfg.checkpoint.patience == 1


def test_a_recipe_may_set_the_learning_rate(fairseq: Any) -> None:
    """Against the scheduler of fairseq, also when the run goes on."""
    recipe = fairseq.write(
        "rates.yaml",
        fairseq.gap + "  - !SetLearningRateModifier {start_epoch: 1.0, learning_rate: 0.003}\n",
    )
    flags = "--save-interval-updates 8"
    whole = fairseq.train("whole", f"--max-epoch 4 {flags}", recipe)
    for name, rate in {"checkpoint1.pt": 0.01, "checkpoint2.pt": 0.003}.items():
        state = fairseq.read(whole / name)["last_optimizer_state"]
        assert [group["lr"] for group in state["param_groups"]] == [rate]
    (fairseq.folder / "part").mkdir()
    shutil.copy(whole / "checkpoint_2_8.pt", fairseq.folder / "part" / "checkpoint_last.pt")
    part = fairseq.train("part", "--max-epoch 4", recipe)
    assert fairseq.equal(whole / "checkpoint_last.pt", part / "checkpoint_last.pt")


STILL = "--optimizer sgd --lr 0.0 --lr-scheduler fixed"
LM = "--task language_modeling --arch transformer_lm --decoder-layers 2 --decoder-embed-dim 16 "
LM += "--decoder-ffn-embed-dim 24 --decoder-attention-heads 2 --decoder-output-dim 16 "
LM += "--decoder-input-dim 16 --tokens-per-sample 16 --batch-size 10 --criterion adaptive_loss "
LM += "--ddp-backend legacy_ddp "
LM += "--adaptive-softmax-cutoff 6 --adaptive-input --adaptive-input-cutoff 6 "
LM += "--tie-adaptive-weights --adaptive-input-factor 1 --adaptive-softmax-factor 1"


@pytest.mark.parametrize(
    "learning",
    [
        "--optimizer adafactor --lr 0.01 --lr-scheduler fixed",
        "--optimizer nag --lr 0.1 --lr-scheduler cosine --max-update 24",
        "--optimizer sgd --lr 0.1 --lr-scheduler reduce_lr_on_plateau",
    ],
)
def test_another_task_and_other_optimizers(fairseq: Any, learning: str) -> None:
    """A language model with adaptive softmax tied to its embedding."""
    flags = "--max-epoch 3 --disable-validation"
    folder = fairseq.train("out", flags, corpus="text", model=LM, learning=learning)
    assert fairseq.sparse(folder / "checkpoint_last.pt")
