"""A distilled run stopped after any step and resumed is bit for bit the run that was not."""

from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.sparsification import (
    DistillationModifier,
    LayerPruningModifier,
    LearningRateFunctionModifier,
    MagnitudePruningModifier,
    PerLayerDistillationModifier,
)
from sparseml.pytorch.utils import load_checkpoint, save_checkpoint

STEPS = 10
RANGE = {"start_epoch": 0.5, "end_epoch": 2.0}


def pruning():
    return MagnitudePruningModifier(
        params=["5.weight"], init_sparsity=0.1, final_sparsity=0.6, update_frequency=0.5,
        start_epoch=0.25, end_epoch=1.5,
    )  # fmt: skip


def rate():
    return LearningRateFunctionModifier("cosine", 0.05, 0.001, 0.0, 2.0)


def sgd(params):
    return torch.optim.SGD(params, lr=0.02, momentum=0.9)


RUNS = {
    "outputs": lambda: {"modifiers": [DistillationModifier(**RANGE), pruning()]},
    "outputs, self": lambda: {
        "modifiers": [DistillationModifier(**RANGE), pruning()],
        "teacher": "self",
    },
    "layers": lambda: {"modifiers": [PerLayerDistillationModifier(**RANGE), rate()]},
    "layers, no schedule": lambda: {
        "modifiers": [PerLayerDistillationModifier(end_epoch=1.5)],
        "optimizer": sgd,
    },
    "layers, self": lambda: {
        "modifiers": [PerLayerDistillationModifier(start_epoch=0.5), pruning(), rate()],
        "teacher": "self",
    },
    "self, then without a layer": lambda: {
        "modifiers": [DistillationModifier(), LayerPruningModifier(["4"], start_epoch=1.0)],
        "teacher": "self",
    },
}


def tensors(state):
    return [v for v in torch.utils._pytree.tree_leaves(state) if isinstance(v, torch.Tensor)]


def outcome(run):
    """Weights and moments of the student and, in the modifiers' states, of the projections."""
    progress = run.manager.state_dict().pop("__progress__")["modifiers"].values()
    projections = [state.get("projections", {}).get("params", []) for state in progress]
    parts = [run.net, run.optimizer, *run.manager.modifiers]
    return tensors([part.state_dict() for part in parts]) + tensors(projections)


@pytest.mark.parametrize("kind", RUNS)
def test_stopping_after_any_step_changes_nothing(kind, distilling, tmp_path):
    def start():
        fields = RUNS[kind]()
        return distilling(*fields.pop("modifiers"), **fields)

    whole = start()
    losses = []
    for number in range(STEPS):
        save_checkpoint(
            tmp_path / f"{number}.pt",
            whole.net,
            optimizer=whole.optimizer,
            manager=whole.manager,
        )
        losses.append(whole.step(number))
    assert any(loss != total for loss, total in losses)
    for stop in range(STEPS):
        resumed = start()
        with torch.no_grad():
            resumed.net[0].weight.add_(1.0)  # what counts is the checkpoint
        load_checkpoint(
            tmp_path / f"{stop}.pt",
            resumed.net,
            optimizer=resumed.optimizer,
            manager=resumed.manager,
        )
        assert [resumed.step(number) for number in range(stop, STEPS)] == losses[stop:]
        pairs = list(zip(outcome(whole), outcome(resumed), strict=True))
        assert all(torch.equal(a, b) for a, b in pairs), f"stopped after {stop} steps"


def test_saved_again_before_the_first_step(distilling, tmp_path):
    whole = distilling(PerLayerDistillationModifier(), teacher="self")
    for number in range(3):
        whole.step(number)
    state, moments = whole.manager.state_dict(), whole.optimizer.state_dict()
    weights = {key: value.clone() for key, value in whole.net.state_dict().items()}
    torch.save([state, moments, weights], tmp_path / "first.pt")
    resumed = distilling(PerLayerDistillationModifier(), teacher="self")
    for path in ("first.pt", "second.pt"):
        resumed = distilling(PerLayerDistillationModifier(), teacher="self")
        state, moments, weights = torch.load(tmp_path / path, weights_only=True)
        resumed.net.load_state_dict(weights)
        resumed.manager.load_state_dict(state)
        resumed.optimizer.load_state_dict(moments)
        torch.save([resumed.manager.state_dict(), moments, weights], tmp_path / "second.pt")
    torch.manual_seed(5)
    again = resumed.step(3)
    torch.manual_seed(5)
    assert whole.step(3) == again


def test_going_back_in_the_same_run(distilling):
    run = distilling(PerLayerDistillationModifier(), optimizer=sgd)
    run.step(0)
    saved = [part.state_dict() for part in (run.net, run.manager, run.optimizer)]
    saved = torch.utils._pytree.tree_map(
        lambda v: v.clone() if isinstance(v, torch.Tensor) else v, saved
    )
    torch.manual_seed(5)
    first = [run.step(number) for number in (1, 2)]
    for part, state in zip((run.net, run.manager, run.optimizer), saved, strict=True):
        part.load_state_dict(state)
    torch.manual_seed(5)
    assert [run.step(number) for number in (1, 2)] == first
