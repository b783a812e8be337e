"""``one_shot_pruning.py`` as a whole."""

from __future__ import annotations

import csv
import errno
import importlib
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sparseml.run import read_masks
from sparseml.timm import session

SCRIPT = "one_shot_pruning.py"
RECIPE = """
pruning_modifiers:
  - !GlobalMagnitudePruningModifier
      params: ['re:body.*weight']
      init_sparsity: 0.3
      final_sparsity: 0.3
      start_epoch: 0
      end_epoch: 1
      update_frequency: 1
"""
PRUNED = ("body.0.weight", "body.1.weight", "body.4.weight")


@pytest.fixture
def one_shot(workplace: Path, flags: list[Any]) -> list[Any]:
    """Flags for a magnitude recipe."""
    (workplace / "recipe.yaml").write_text(RECIPE)
    return [*flags, "--sparseml-recipe", "recipe.yaml", "--latency-rounds", 0]


def _results(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "results.json").read_text())["results"]


def test_every_sparsity_gets_weights_masks_and_a_line(
    one_shot: list[Any], call: Any, workplace: Path
) -> None:
    done = call(SCRIPT, *one_shot, "--sparsities", 0.5, 0.75)
    out = workplace / "out/run"
    rows = _results(out)
    assert [row["sparsity"] for row in rows] == [0.0, 0.5, 0.75]
    with (out / "results.csv").open() as file:
        assert [float(row["val/acc"]) for row in csv.DictReader(file)] == [
            row["val/acc"] for row in rows
        ]
    for row in rows[1:]:
        folder = out / f"sparsity={row['sparsity']:g}"
        weights, masks = load_file(folder / "model.safetensors"), read_masks(
            folder / "masks.safetensors"
        )  # fmt: skip
        assert set(masks) == set(PRUNED)
        zeros = sum(int((weights[name] == 0).sum()) for name in masks)
        total = sum(weights[name].numel() for name in masks)
        assert zeros == round(row["sparsity"] * total)
        assert all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.items())
        assert json.loads((folder / "run.json").read_text())["status"] == "finished"
        assert f"final_sparsity: {row['sparsity']:g}" in (folder / "recipe.yaml").read_text()
    assert "sparsity |   top1" in done.out and "dense" in (out / "table.txt").read_text()


def test_the_weights_can_be_evaluated_again(
    one_shot: list[Any], call: Any, workplace: Path
) -> None:
    call(SCRIPT, *one_shot, "--sparsities", 0.5)
    first = _results(workplace / "out/run")
    weights = first[1]["file"]
    call(SCRIPT, *one_shot, "--checkpoint", weights, "--experiment", "again")
    again = _results(workplace / "out/again")
    assert again[0]["val/acc"] == first[1]["val/acc"]
    assert again[0]["val/loss"] == pytest.approx(first[1]["val/loss"])


def test_without_sparsities_the_recipe_says(
    one_shot: list[Any], call: Any, workplace: Path
) -> None:
    call(SCRIPT, *one_shot)
    assert [round(row["zeros"], 3) for row in _results(workplace / "out/run")] == [0, 0.3]
    masks = read_masks(workplace / "out/run/recipe/masks.safetensors")
    assert set(masks) == set(PRUNED)


AS_TRAINED = ["--crop-padding", 1, "--color-jitter", 0]


def test_flags_with_underscores_and_batch_norms_measured_anew(
    one_shot: list[Any], call: Any, workplace: Path
) -> None:
    flags = [str(flag).replace("--data-dir", "--data_dir") for flag in one_shot]
    more = ["-gb", 16, "-vb", 16, "--gs_loader", "--save_model", "--sparsities", 0.5, *AS_TRAINED]
    done = call(SCRIPT, *flags, *more, "--bn-retune", 0)
    notes = json.loads((workplace / "out/run/sparsity=0.5/result.json").read_text())["notes"]
    told = [note for note in notes if "--bn-retune" in note]
    assert len(told) == 1 and done.out.count(told[0]) == 1
    assert "bn new" not in done.out and not any("bn" in key for key in _results(Path("out/run"))[1])
    plain = load_file(workplace / "out/run/sparsity=0.5/model.safetensors")
    done = call(SCRIPT, *flags, *more, "--experiment", "tuned")
    assert told[0] not in done.out and "bn old | bn new" in done.out
    assert re.search(r"^dense, batch norms measured anew  top1 \d", done.out, re.MULTILINE)
    assert re.search(r"^sparsity 0.5: 1 norms measured anew: loss .* kept$", done.out, re.MULTILINE)
    row = _results(workplace / "out/tuned")[1]
    tuned = json.loads((workplace / "out/tuned/sparsity=0.5/result.json").read_text())
    (note,) = (note for note in tuned["notes"] if "Batch norms" in note)
    kept = "new ones" in note
    assert row["val/loss"] == row[f"val/loss bn {'new' if kept else 'old'}"]
    assert row["val/loss bn old"] == _results(workplace / "out/run")[1]["val/loss"]
    assert row["val/loss bn old"] != row["val/loss bn new"]
    tuned = load_file(workplace / "out/tuned/sparsity=0.5/model.safetensors")
    differ = {name for name, value in plain.items() if not torch.equal(value, tuned[name])}
    assert differ == ({"body.1.running_mean", "body.1.running_var"} if kept else set())
    again = call(SCRIPT, *flags, *more, "--experiment", "again")
    assert again.status == 0 and _results(workplace / "out/again")[1] | {"file": ""} == row | {
        "file": ""
    }


def test_batch_norms_are_measured_on_images_as_in_training(
    one_shot: list[Any], call: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    retune = session.ImageSession.training_batches
    erased: list[bool] = []

    def watched(self: session.ImageSession) -> Any:
        for images, labels in retune(self):
            seen.append(tuple(images.shape))
            erased.append(bool((images == 0).flatten(1).any(1).all()))
            yield images, labels

    monkeypatch.setattr(session.ImageSession, "training_batches", watched)
    flags = [*one_shot, "-gb", 4, "-vb", 16, "--bn-retune", 1, "--sparsities", 0.5]
    call(SCRIPT, *flags)
    assert set(seen) == {(16, 3, 8, 8)} and len(seen) == 6, "of three one is held out"
    assert not any(erased)
    seen.clear(), erased.clear()
    (workplace / "mine.yaml").write_text("reprob: 1.0\nremode: const\nscale: [1, 1]\n")
    more = ["--bn-retune-batch-size", 6, "-c", "mine.yaml", "--experiment", "own"]
    call(SCRIPT, *flags, *more)
    assert set(seen) == {(6, 3, 8, 8)} and all(erased)


def test_a_model_without_batch_norms_has_none_to_measure(
    one_shot: list[Any], call: Any, workplace: Path
) -> None:
    code = (workplace / "own_code.py").read_text().replace("nn.BatchNorm2d(8)", "nn.Identity()")
    (workplace / "own_code.py").write_text(code)
    done = call(SCRIPT, *one_shot, "--bn-retune", 2, "--sparsities", 0.5)
    assert done.out.count("--bn-retune: the model has no batch norms") == 1
    assert "batch norms" not in call(SCRIPT, *one_shot, "--experiment", "unasked").out


def test_a_crop_of_padded_images_is_a_way_to_crop(one_shot: list[Any], call: Any) -> None:
    done = call(SCRIPT, *one_shot, "--crop-padding", 1, "--train-crop-mode", "rrc", fails=True)
    assert "leave out --train-crop-mode rrc" in done.error


def test_the_layout_in_memory_changes_no_result(
    one_shot: list[Any], call: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool] = []
    load = session.load_model

    def watched(*args: Any) -> Any:
        model = load(*args)
        model.register_forward_pre_hook(
            lambda module, _: given.append(
                module.body[0].weight.is_contiguous(memory_format=torch.channels_last)
            )
        )
        return model

    monkeypatch.setattr(session, "load_model", watched)
    call(SCRIPT, *one_shot, "--sparsities", 0.5)
    assert given and not any(given)
    given.clear()
    call(SCRIPT, *one_shot, "--sparsities", 0.5, "--channels-last", "--experiment", "last")
    assert given and all(given)
    plain, last = (_results(workplace / "out" / name) for name in ("run", "last"))
    for one, other in zip(plain, last, strict=True):
        assert one["val/loss"] == pytest.approx(other["val/loss"], rel=1e-4)
    weights = [load_file(workplace / row["file"]) for row in (plain[1], last[1])]
    for name, value in weights[0].items():  # what is measured on outputs is rounded otherwise
        close = {"rtol": 1e-4, "atol": 1e-5} if "running" in name else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(weights[1][name], value, **close)


@pytest.mark.parametrize(
    ("modifier", "fields"),
    [
        ("OBS", "fisher_block_size: 8\n      damp: 1.0e-4"),
        ("CA", "fisher_block_size: 8\n      damp: 1.0e-4"),
        ("FastCA", "fisher_block_size: 8\n      damp: 0.01"),
        ("MFAC", "fisher_block_size: 32\n      use_gradient_buffering: False"),
        ("GWProd", "global_sparsity: True"),
    ],
)
def test_pruning_by_gradients_of_the_loader(
    flags: list[Any], call: Any, workplace: Path, modifier: str, fields: str
) -> None:
    recipe = RECIPE.replace("GlobalMagnitude", modifier).rstrip()
    (workplace / "grads.yaml").write_text(recipe + f"\n      num_grads: 6\n      {fields}\n")
    given = [*flags, "--recipe", "grads.yaml", "-gb", 8, "--latency-rounds", 0, "--sparsities"]
    done = call(SCRIPT, *given, 0.5, 0.75, "--experiment", "both")
    assert "6 gradients of 6 batches of 8, 48 inputs, 1 passes over the training data" in done.out
    call(SCRIPT, *given, 0.5, "--experiment", "one")
    both, one = (load_file(f"out/{n}/sparsity=0.5/model.safetensors") for n in ("both", "one"))
    for key, value in both.items():  # FastCAP prunes columns one after another: sums may differ
        torch.testing.assert_close(value, one[key], atol=1e-5, rtol=1e-4)
    for sparsity in (0.5, 0.75):
        masks = read_masks(f"out/both/sparsity={sparsity}/masks.safetensors")
        sizes = {name: mask.numel() for name, mask in masks.items()}
        zeros = sum(int((~mask).sum()) for mask in masks.values())
        assert set(masks) == set(PRUNED)
        assert zeros == pytest.approx(sparsity * sum(sizes.values()), abs=len(sizes))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--sparsities", 1.5], r"strictly between 0 and 1, found [1.5]"),
        (["--data-dir", "/nowhere"], "--data-dir /nowhere: no such folder"),
        (["--val-split", "exam"], "has no folder 'exam' of images; its folders: train, val"),
        (["--num-classes", 7], "has 3 classes, but own_code:small tells 7 apart"),
        (["--recipe", "gone.yaml"], "gone.yaml"),
        (["--model", "resnt18"], "has no such model; did you mean 'resnet18"),
        (["--checkpoint", "bad.pth"], "bad.pth is not a file of torch.save, or is damaged"),
        (["--checkpoint", "bad.safetensors"], "bad.safetensors is not a safetensors file"),
        (["--checkpoint", "flipped.pth"], "flipped.pth is damaged: the checksum of its part"),
        (["--checkpoint", "gone.pth"], "--checkpoint gone.pth: no such file"),
        (["--checkpoint", "."], "--checkpoint .: Is a directory"),
        (
            ["--output", "recipe.yaml"],
            "--output: recipe.yaml/run cannot be written: Not a directory",
        ),
        (["--device", "cuda"], "torch finds no GPU"),
        (["--recipe-args", "sparsty=1"], "sparsty"),
    ],
)
def test_mistakes_are_told_in_one_line(
    one_shot: list[Any], call: Any, workplace: Path, more: list[Any], expected: str
) -> None:
    if torch.cuda.is_available() and "cuda" in more:
        pytest.skip("there is a GPU")
    for name in ("bad.pth", "bad.safetensors"):
        (workplace / name).write_bytes(b"\x08" * 99)
    torch.save({"weight": torch.zeros(999)}, workplace / "flipped.pth")
    content = bytearray((workplace / "flipped.pth").read_bytes())
    content[len(content) // 2] ^= 255
    (workplace / "flipped.pth").write_bytes(content)
    done = call(SCRIPT, *one_shot, *more, fails=True)
    lines = [line for line in done.error.splitlines() if line.startswith("error: ")]
    assert done.status == 2 and len(lines) == 1 and expected in lines[0], done.error
    assert "Traceback" not in done.error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "x"),
        RuntimeError("No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_up(
    one_shot: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from sparseml.pytorch.utils.saving import files

    def fill_up(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(files, "save_file", fill_up)
    done = call(SCRIPT, *one_shot, fails=True)
    assert done.status == 2
    assert "cannot be written: No space left on device" in done.error
    monkeypatch.setattr(files, "save_file", lambda *args, **kwargs: 1 / 0)
    done = call(SCRIPT, *one_shot, "--experiment", "other", fails=True)
    assert done.status == 1  # no other error is taken for it
    assert "error: ZeroDivisionError: division by zero" in done.error


def test_results_are_not_replaced_unasked(one_shot: list[Any], call: Any, workplace: Path) -> None:
    call(SCRIPT, *one_shot)
    done = call(SCRIPT, *one_shot, fails=True)
    assert "holds results: give --overwrite or another --experiment" in done.error
    call(SCRIPT, *one_shot, "--overwrite")


def test_the_report_compares_all_sparsities(
    one_shot: list[Any], call: Any, workplace: Path
) -> None:
    pytest.importorskip("jinja2")
    flags = [flag for flag in one_shot if flag != "--no-report"]
    call(SCRIPT, *flags, "--sparsities", 0.5, 0.9, "--latency-rounds", 2)
    data = json.loads((workplace / "out/run/report.json").read_text())
    assert "0.9" in json.dumps(data)
    result = json.loads((workplace / "out/run/sparsity=0.9/result.json").read_text())
    sparse = result["variants"]["sparse"]
    assert sparse["latency"][0]["rounds"] >= 2 and math.isfinite(sparse["metrics"]["loss"])
    assert {layer["name"] for layer in result["layers"] if layer["asked"]} == set(PRUNED)


@pytest.mark.parametrize(
    ("more", "loaded"),
    [
        ([], None),  # the user's own model may have loaded weights, or not
        (["--checkpoint", "weights.pth"], True),
        (["--model", "test_resnet", "--no-pretrained", "--num-classes", 3], False),
    ],
)
def test_a_run_records_what_it_was_measured_on_and_by(
    one_shot: list[Any],
    call: Any,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[Any],
    loaded: bool | None,
) -> None:
    monkeypatch.syspath_prepend(workplace)
    torch.save(importlib.import_module("own_code").small().state_dict(), "weights.pth")
    recipe = RECIPE.replace("['re:body.*weight']", "__ALL_PRUNABLE__")
    (workplace / "recipe.yaml").write_text(recipe)
    call(SCRIPT, *one_shot, *more, "--img-size", 32)
    result = json.loads((workplace / "out/run/recipe/result.json").read_text())
    assert {name: variant["samples"] for name, variant in result["variants"].items()} == {
        "dense": 21,
        "sparse": 21,
    }
    assert result["variants"]["dense"]["trained"] is loaded


def test_an_effort_chooses_the_dampening_and_leaves_it_in_the_run(
    flags: list[Any], call: Any, workplace: Path
) -> None:
    recipe = RECIPE.replace("GlobalMagnitude", "CA").rstrip()
    (workplace / "cap.yaml").write_text(recipe + "\n      num_grads: 6\n      damp: 1.0e-4\n")
    given = [*flags, "--recipe", "cap.yaml", "-gb", 8, "--latency-rounds", 0, "--effort", "fast"]
    done = call(SCRIPT, *given, "--sparsities", 0.5, 0.75)
    assert "512 gradients of 64 batches of 8, 512 inputs" in done.out
    for sparsity in (0.5, 0.75):
        folder = workplace / f"out/run/sparsity={sparsity}"
        notes = json.loads((folder / "result.json").read_text())["notes"]
        (note,) = [one for one in notes if "damp: auto chose" in one]
        assert f"at sparsity {sparsity}" in note
        assert "effort: fast" in (folder / "recipe.yaml").read_text()
    (workplace / "plain.yaml").write_text(RECIPE)
    done = call(SCRIPT, *flags, "--recipe", "plain.yaml", "--effort", "fast", fails=True)
    assert "--effort fast: plain.yaml has no modifier with an effort" in done.error
