"""``sparse_training.py`` as a whole."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sparseml.run import read_masks

SCRIPT = "sparse_training.py"
RATE = """
  - !LearningRateFunctionModifier
      start_epoch: 0
      end_epoch: eval(epochs)
      lr_func: cyclic_linear
      cycle_epochs: 1.0
      init_lr: 0.1
      final_lr: 0.01
pruning_modifiers:"""


@pytest.fixture
def gradual(flags: list[Any]) -> list[Any]:
    """Flags for four epochs of six steps with the gradual recipe."""
    more = ["--sparseml-recipe", "gradual.yaml", "-b", 8, "--lr", 0.1, "--warmup-epochs", 0]
    return [*flags, *more, "--epochs", 4, "--smoothing", 0]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_gradual_run_leaves_all_its_files(gradual: list[Any], call: Any, workplace: Path) -> None:
    done = call(SCRIPT, *gradual, "--log-sparsity", "--checkpoint-freq", 2, "--model-ema")
    out = workplace / "out/run"
    masks, weights = read_masks(out / "masks.safetensors"), _weights(out)
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    assert pruned == round(0.8 * sum(mask.numel() for mask in masks.values()))
    assert all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.items())
    rows = _rows(out)
    levels = [float(row["sparsity"]) for row in rows]
    assert levels == sorted(levels) and levels[-1] == pytest.approx(0.8, abs=1e-3)
    assert {"train/loss", "eval/top1", "ema/top1", "lr", "prunable_sparse"} <= rows[0].keys()
    names = {path.name for path in (out / "checkpoints").iterdir()}
    assert {"small_last.pth", "small_epoch=1.pth", "small_epoch=3.pth"} <= names
    assert {f"small_sparsity={level:.2f}_best.pth" for level in levels} <= names
    info = json.loads((out / "sparsity_distribution_epoch=0.json").read_text())["params_info"]
    assert set(info["body.0.weight"]) == {"numel", "sparsity", "quantized"}
    tags = {json.loads(line)["tag"] for line in (out / "metrics.jsonl").read_text().splitlines()}
    assert {"train", "epoch"} <= tags and any(tag.startswith("ParamPruning/") for tag in tags)
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    assert [done.out.count(f"epoch {epoch}/4  train loss") for epoch in range(1, 5)] == [1] * 4
    assert "6/6" not in done.error, "of an epoch of less than ten seconds one line is enough"


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--grad-accum-steps", 2, "--model-ema", "--opt", "adamw", "--sched-on-updates"],
        ["--sam", "--sam-topk", 0.3, "--clip-grad", 1.0, "--mixup", 0.4, "--amp"],
        ["--workers", 2, "--aa", "rand-m6-mstd0.5-inc1", "--reprob", 0.3, "--cutmix", 0.5],
    ],
    ids=["plain", "accumulating", "sam", "workers"],
)
def test_a_resumed_run_equals_one_that_was_not(
    gradual: list[Any], call: Any, workplace: Path, more: list[Any]
) -> None:
    call(SCRIPT, *gradual, *more, "--checkpoint-freq", 1)
    out = workplace / "out/run"
    whole, masks = _weights(out), read_masks(out / "masks.safetensors")
    rows = _rows(out)
    for epoch in (0, 2):
        middle = out / f"checkpoints/small_epoch={epoch}.pth"
        flags = [*gradual, *more, "--experiment", f"from{epoch}", "--resume", middle]
        done = call(SCRIPT, *flags)
        assert f"after {epoch + 1} epochs" in done.out
        folder = workplace / f"out/from{epoch}"
        assert all(torch.equal(value, whole[key]) for key, value in _weights(folder).items())
        resumed = read_masks(folder / "masks.safetensors")
        assert all(torch.equal(mask, masks[key]) for key, mask in resumed.items())
        timeless = [{**row, "images_per_second": ""} for row in _rows(folder)]
        assert timeless == [{**row, "images_per_second": ""} for row in rows]


@pytest.mark.parametrize(("modifier", "workers"), [("CA", 0), ("GWProd", 0), ("CA", 2)])
def test_resuming_where_gradients_are_sampled(
    gradual: list[Any], call: Any, workplace: Path, modifier: str, workers: int
) -> None:
    text = (workplace / "gradual.yaml").read_text().replace("GlobalMagnitude", modifier).rstrip()
    more = (
        "fisher_block_size: 8\n      damp: 1.0e-4" if modifier == "CA" else "global_sparsity: True"
    )
    (workplace / "gradual.yaml").write_text(f"{text}\n      num_grads: 4\n      {more}\n")
    flags = [*gradual, "-gb", 16, "--checkpoint-freq", 1, "--workers", workers]
    call(SCRIPT, *flags)
    whole = _weights(workplace / "out/run")
    middle = "out/run/checkpoints/small_epoch=1.pth"
    call(SCRIPT, *flags, "--experiment", "resumed", "--resume", middle)
    resumed = _weights(workplace / "out/resumed")
    assert all(torch.equal(value, whole[key]) for key, value in resumed.items())


def test_resuming_goes_on_in_the_folder_of_the_run(
    gradual: list[Any], call: Any, workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    call(SCRIPT, *gradual, "--checkpoint-freq", 1)
    out = workplace / "out/run"
    whole = _weights(out)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = {path.name for path in (out / "checkpoints").iterdir()}
    for lost in ("", "run.json"):  # without which the folder was taken for a new one, and emptied
        shutil.copy(out / "checkpoints/small_epoch=1.pth", out / "checkpoints/small_last.pth")
        if lost:
            (out / lost).unlink()
        call(SCRIPT, *gradual, "--resume", out)
        assert ("run.json is missing and begun anew" in caplog.text) == bool(lost)
        assert all(torch.equal(value, whole[key]) for key, value in _weights(out).items())
        lines = (out / "metrics.jsonl").read_text().splitlines()
        assert sorted(json.loads(line)["step"] for line in lines) == sorted(steps)
        assert kept <= {path.name for path in (out / "checkpoints").iterdir()}


def test_the_recipe_may_set_learning_rate_and_epochs(
    gradual: list[Any], call: Any, workplace: Path
) -> None:
    text = (workplace / "gradual.yaml").read_text().replace("\npruning_modifiers:", RATE)
    (workplace / "gradual.yaml").write_text(text)
    (workplace / "config.yaml").write_text("epochs: 300\nopt: adamw\nsched: tanh\n")
    flags = gradual[: gradual.index("--epochs")]
    call(SCRIPT, *flags, "-c", "config.yaml", "--log-interval", 1)
    out = workplace / "out/run"
    assert len(_rows(out)) == 4
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rates = [line["values"]["lr"] for line in lines if line["tag"] == "train"]
    assert rates[0] == pytest.approx(0.1) and rates[5] == pytest.approx(0.01)
    assert rates[6] == pytest.approx(0.1), "a cycle each epoch"
    assert (out / "args.yaml").read_text().count("adamw") == 1


def test_one_shot_before_fine_tuning(gradual: list[Any], call: Any, workplace: Path) -> None:
    text = (workplace / "gradual.yaml").read_text()
    text = text.replace("init_sparsity: 0.2", "init_sparsity: eval(sparsity)")
    (workplace / "gradual.yaml").write_text(text.replace("update_frequency: 0.5", EQUAL))
    call(SCRIPT, *gradual, "--recipe-args", "sparsity=0.6", "--bn-retune", 2)
    rows = _rows(workplace / "out/run")
    assert {row["sparsity"] for row in rows} == {rows[0]["sparsity"]}
    assert float(rows[0]["sparsity"]) == pytest.approx(0.6, abs=1e-3)


EQUAL = "update_frequency: 9.0"


def test_a_teacher_of_the_same_weights_changes_little_and_another_much(
    gradual: list[Any], call: Any, workplace: Path
) -> None:
    gradual += ["--epochs", 3, "--recipe-args", "epochs=3"]
    call(SCRIPT, *gradual)
    plain = _weights(workplace / "out/run")
    teacher = ["--teacher", "own_code:small", "--distill-weight", 0.7]
    teacher += ["--teacher-checkpoint", workplace / "out/run/model.safetensors"]
    call(SCRIPT, *gradual, *teacher, "--experiment", "taught")
    taught = _weights(workplace / "out/taught")
    assert not torch.equal(plain["head.weight"], taught["head.weight"])
    call(SCRIPT, *gradual, *teacher[:2], "--distill-weight", 0.0, "--experiment", "alone")
    alone = _weights(workplace / "out/alone")
    torch.testing.assert_close(alone["head.weight"], plain["head.weight"], atol=0.3, rtol=0)


def test_a_teacher_for_the_recipe(gradual: list[Any], call: Any, workplace: Path) -> None:
    text = (workplace / "gradual.yaml").read_text()
    modifier = "DistillationModifier {start_epoch: 0, end_epoch: 3, hardness: 0.8, temperature: 2}"
    text = text.replace("\npruning_modifiers:", f"\n  - !{modifier}\npruning_modifiers:")
    (workplace / "taught.yaml").write_text(text)
    call(SCRIPT, *gradual)
    teacher = ["--teacher", "own_code:small"]
    call(SCRIPT, *gradual, *teacher, "--recipe", "taught.yaml", "--experiment", "taught")
    plain, taught = (_weights(workplace / "out" / name) for name in ("run", "taught"))
    assert not torch.equal(plain["head.weight"], taught["head.weight"])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--epochs", 3], None),
        (["--epochs", 2], "gradual.yaml takes 4 epochs, --epochs 2 ends before"),
        (["--recipe-args", '{"epochs": 9}'], "takes 9 epochs, --epochs 4 ends before"),
        (["--data-dir", "/nowhere"], "--data-dir /nowhere: no such folder"),
        (["--num-classes", 7], "has 3 classes, but own_code:small tells 7 apart"),
        (["-b", 64], "48 training images do not fill a batch of 64"),
        (["-b", 7, "--mixup", 0.2], "--batch-size 7: mixup and cutmix pair images"),
        (["--aa", "nonsense"], "timm cannot prepare images with these settings: AssertionError: U"),
        (["--teacher-checkpoint", "w.pth"], "--teacher-checkpoint w.pth needs --teacher MODEL"),
        (["--teacher", "resnt18"], "--teacher resnt18: timm"),
        (
            ["--teacher", "own_code:small", "--teacher-checkpoint", "none.pth"],
            "--teacher-checkpoint none.pth: no such file",
        ),
        (["--cutmix-minmax", 0.9, 0.1], "--cutmix-minmax must rise from 0 to 1, found 0.9 0.1"),
        (["--opt", "sgdd"], "--opt sgdd"),
        (["--sched", "cosin"], "--sched cosin"),
        (["--resume", "gone"], "--resume gone: no such file or folder"),
        (["--resume", "."], "0 files *_last.pth are there, not one"),
        (["--resume", "bad.pth"], "bad.pth is damaged or cut short"),
        (["--lr", 1e30], "lower the learning rate"),
        (["--sam", "--sam-rho", -1], "--sam: rho must not be negative"),
    ],
)
def test_mistakes_are_told_in_one_line(
    gradual: list[Any], call: Any, workplace: Path, more: list[Any], expected: str | None
) -> None:
    (workplace / "bad.pth").write_bytes(b"PK\x03\x04 not a whole archive")
    if expected is None:
        more, expected = ["--recipe", "nothing.yaml"], "pattern 're:bodies.*' "
        text = (workplace / "gradual.yaml").read_text().replace("re:body.*weight", "re:bodies.*")
        (workplace / "nothing.yaml").write_text(text)
    done = call(SCRIPT, *gradual, *more, fails=True)
    lines = [line for line in done.error.splitlines() if line.startswith("error: ")]
    assert done.status == 2 and len(lines) == 1 and expected in lines[0], done.error
    assert "Traceback" not in done.error


def test_a_checkpoint_that_was_cut_short(gradual: list[Any], call: Any, workplace: Path) -> None:
    call(SCRIPT, *gradual)
    out = workplace / "out/run"
    whole = _weights(out)
    last = out / "checkpoints/small_last.pth"
    last.write_bytes(last.read_bytes()[:-500])
    done = call(SCRIPT, *gradual, "--resume", out)
    assert "after 3 epochs" in done.out, "from the checkpoint before it"
    assert all(torch.equal(value, whole[key]) for key, value in _weights(out).items())
    for path in (last, last.with_name("small_last.pth.previous")):
        path.write_bytes(path.read_bytes()[:-500])
    done = call(SCRIPT, *gradual, "--resume", last, fails=True)
    assert "small_last.pth is damaged or cut short" in done.error


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(
    gradual: list[Any], call: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparseml.pytorch.utils.saving import files

    saved: list[Path] = []
    save = torch.save

    def fill_up(content: Any, path: Path, **kwargs: Any) -> None:
        saved.append(path)
        if len(saved) > 3:
            path.write_bytes(b"half a checkpoint")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(content, path, **kwargs)

    monkeypatch.setattr(files.torch, "save", fill_up)
    done = call(SCRIPT, *gradual, fails=True)
    last = workplace / "out/run/checkpoints/small_last.pth"
    assert "_last.pth cannot be written: " in done.error
    assert "No space left on device" in done.error
    assert "the last checkpoint is whole, --resume goes on from it" in done.error
    assert json.loads((workplace / "out/run/run.json").read_text())["status"] == "failed"
    assert not list(last.parent.glob(".*")), "nothing half written stays"
    monkeypatch.undo()
    os.chdir(workplace)
    assert torch.load(last, weights_only=True)["epoch"] == 3
