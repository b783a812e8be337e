"""The helpers of the one-shot study: gradients from memory, results that stay."""

from __future__ import annotations

import importlib
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sparseml.pytorch.sparsification.pruning import CAPruningModifier

RESEARCH = Path(__file__).resolve().parents[2] / "research"
ROW = {"model": "net", "method": "cap", "seed": 0, "sparsity": 0.5, "accuracy": 0.25}


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RESEARCH))
    return importlib.import_module("recorded_gradients")


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RESEARCH))
    return importlib.import_module("study_results")


def _problem() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        for param in net.parameters():
            param.copy_(torch.randn(param.shape, generator=random))
    return net, torch.randn(40, 6, generator=random), torch.arange(40) % 3


def test_recorded_gradients_are_those_of_the_loss(gradients: Any) -> None:
    net, inputs, labels = _problem()
    weights = [net[0].weight, net[2].weight]
    recording = gradients.RecordingLoss(net, weights)
    recording.record(gradients.endless_batches(inputs, labels, 8, seed=3), 6)
    batches = list(islice(gradients.endless_batches(inputs, labels, 8, seed=3), 7))
    changed = weights[0].detach() * 2
    for first in (True, False):
        if not first:
            weights[0].data.copy_(changed)
        for (some, truth, number), _, _ in batches:
            output = recording(some, truth, number)
            loss = cross_entropy(net(some), truth)
            assert torch.equal(output, loss) == (not first or number == 6)
            for found, true in zip(
                torch.autograd.grad(output, weights),
                torch.autograd.grad(loss, weights),
                strict=True,
            ):
                torch.testing.assert_close(found, true)


def test_batches_go_on_in_another_order_and_follow_the_seed(gradients: Any) -> None:
    inputs, labels = torch.arange(6.0), torch.arange(6)

    def drawn(seed: int) -> list[list[int]]:
        batches = gradients.endless_batches(inputs, labels, 3, seed)
        return [target.tolist() for _, _, target in islice(batches, 4)]

    found = drawn(0)
    assert sorted(found[0] + found[1]) == sorted(found[2] + found[3]) == list(range(6))
    assert found[:2] != found[2:]
    assert found == drawn(0) != drawn(1)


@pytest.mark.parametrize("steps", [1, 3])
def test_pruning_by_recorded_gradients_is_pruning_by_the_loss(gradients: Any, steps: int) -> None:
    net, inputs, labels = _problem()
    recording = gradients.RecordingLoss(net, [net[0].weight, net[2].weight])
    sampler = gradients.grad_sampler(lambda: gradients.endless_batches(inputs, labels, 8, 1))
    found = []
    for count in (0, 16):
        recording.record(gradients.endless_batches(inputs, labels, 8, 1), count)
        modifier = CAPruningModifier(
            *(0.5, 0.5, 0.0, 1.0, 1.0, "__ALL_PRUNABLE__"),
            num_grads=16,
            fisher_block_size=8,
            damp=1e-3,
            num_recomputations=steps,
        )
        ((_, outcome),) = modifier.sweep(recording, [0.5], grad_sampler=sampler)
        found.append(outcome)
    assert set(found[0]) == {"net.0.weight", "net.2.weight"}
    for name, (mask, weight) in found[0].items():
        assert torch.equal(mask, found[1][name][0])
        torch.testing.assert_close(weight, found[1][name][1])


def test_results_stay_and_are_not_asked_for_again(results: Any, tmp_path: Path) -> None:
    path = tmp_path / "results" / "study.json"
    study = results.StudyResults(path, {"gradients": 4})
    assert study.missing("net", "cap", 0, [0.5, 0.9]) == [0.5, 0.9]
    study.add(ROW)
    results.StudyResults(path, {"gradients": 4}).add({**ROW, "seed": 1, "accuracy": 0.75})
    study.add({**ROW, "accuracy": 0.5})
    assert [row["accuracy"] for row in study.rows()] == [0.5, 0.75]
    assert study.missing("net", "cap", 0, [0.5, 0.9]) == [0.9]
    assert [file.name for file in path.parent.iterdir()] == ["study.json"]


def test_results_of_other_settings_are_not_mixed_in(results: Any, tmp_path: Path) -> None:
    results.StudyResults(tmp_path / "study.json", {"gradients": 4}).add(ROW)
    with pytest.raises(ValueError, match="other settings"):
        results.StudyResults(tmp_path / "study.json", {"gradients": 5}).add(ROW)


def test_what_the_repository_has_is_not_found_again_nor_changed(
    results: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known, own = tmp_path / "kept/study.json", tmp_path / "mine/study.json"
    results.StudyResults(known, {}).add(ROW)
    before = known.read_bytes()
    study = results.StudyResults(own, {}, known)
    assert study.missing("net", "cap", 0, [0.5, 0.9]) == [0.9]
    study.tell(1, 0)
    assert str(known.with_suffix(".*")) in capsys.readouterr().out and not own.parent.exists()
    study.add({**ROW, "sparsity": 0.9})
    assert len(study.rows()) == 1 and known.read_bytes() == before
    study.tell(3, 1)
    told = capsys.readouterr().out
    assert (
        f"2 of 3 results are there: {own.with_suffix('.*')} and {known.with_suffix('.*')}" in told
    )
    assert f"1 of 3 results are to be found; they go to {own}" in told
    assert results.StudyResults(own, {}).missing("net", "cap", 0, [0.5, 0.9]) == [0.5]


def test_the_table_says_how_many_seeds_a_cell_has(results: Any, tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "seed": 1, "accuracy": 0.35}, {**ROW, "sparsity": 0.9, "accuracy": 0.1}]
    methods = {"cap": "CAP", "obs": "OBS"}
    text = results.table(rows, {"net": "Net"}, methods, [0.5, 0.7, 0.9])
    assert "| CAP | 30.00 ± 7.07 (2) | - | 10.00 (1) |\n" in text
    assert "| OBS | - | - | - |\n" in text
    assert text.startswith("**Net**\n\n| method")
    noted = results.table(rows, {"net": "Net"}, methods, [0.5], {"net": "as it was"})
    assert noted.startswith("**Net**\n\n(as it was)\n\n| method")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- study:begin -->\nold\n<!-- study:end -->\nafter\n")
    for _ in range(2):
        results.write_between(page, "study", text)
    assert page.read_text() == (
        f"before\n<!-- study:begin -->\n\n{text}\n<!-- study:end -->\nafter\n"
    )
    with pytest.raises(ValueError, match="other:begin"):
        results.write_between(page, "other", text)


def test_the_plot_is_the_same_file_each_time(results: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = []
    for _ in range(2):
        results.plot(tmp_path / "a.svg", [ROW], {"net": "Net"}, {"cap": "CAP"}, [0.5, 0.9])
        found.append((tmp_path / "a.svg").read_bytes())
    assert found[0] == found[1] and b"<svg" in found[0]


def test_what_was_before_stands_beside_what_is_now(results: Any) -> None:
    now = [
        {**ROW, "method": "dense", "sparsity": 0.0, "accuracy": 0.9},
        {**ROW, "accuracy": 0.5, "old": 0.4, "new": 0.5},
        {**ROW, "model": "plain", "accuracy": 0.6},
    ]
    models = {"net": "Net", "plain": "Plain", "other": "Other"}
    text = results.beside([ROW], now, models, {"cap": "CAP"}, [0.5, 0.9])
    assert text == (
        "**Net**, dense 90.00\n\n"
        "| method | 50% before | 50% old norms | 50% norms anew | 50% |\n|---|---|---|---|---|\n"
        "| CAP | 25.00 (1) | 40.00 (1) | 50.00 (1) | 50.00 (1) |\n\n"
        "**Plain**\n\n| method | 50% before | 50% |\n|---|---|---|\n| CAP | - | 60.00 (1) |\n"
    )


def test_training_images_of_the_study_are_padded_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RESEARCH))
    study = importlib.import_module("cifar_one_shot_study")
    images, black = torch.ones(40, 3, 8, 8), torch.tensor([-1.0, -2.0, -3.0])
    batches = list(study.padded_crops(images, torch.arange(40), black, 0, 16))
    again = list(study.padded_crops(images, torch.arange(40), black, 0, 16))
    for ((crops,), _, labels), ((same,), _, also) in zip(batches, again, strict=True):
        assert torch.equal(crops, same) and torch.equal(labels, also)
    crops = torch.cat([one[0] for one, _, _ in batches])
    assert sorted(torch.cat([labels for _, _, labels in batches]).tolist()) == list(range(40))
    for channel, colour in enumerate(black):
        assert set(crops[:, channel].unique().tolist()) == {1.0, float(colour)}
    inside = (crops[:, 0] == 1).flatten(1).sum(1)
    assert int(inside.min()) >= 16 and len(inside.unique()) > 4
    tuned = study.methods_of(study.TUNED_SETTINGS, "small_vit")["cap"].modifier
    assert tuned.keywords["fisher_block_size"] == 192 and tuned.keywords["damp"] == "auto"
    old = study.METHODS["fast_cap"].modifier.keywords
    assert (old["fisher_block_size"], old["damp"]) == (64, 1e-2)
