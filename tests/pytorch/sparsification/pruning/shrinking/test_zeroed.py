"""``remove: false``: units of 0 in a plain model of the old sizes, and what that is equal to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparseml.pytorch.shrink import shrink
from sparseml.pytorch.sparsification import SRPPruningModifier
from sparseml.pytorch.utils.saving.checkpoint import load_checkpoint, save_checkpoint

from .runs import SAMPLER, STEPS, Classifier, Run, batches, outputs_of, recipe_of

SECOND = "compression_rate: 0.4, start_epoch: 1.0, end_epoch: 3.0, stage: 2"


@pytest.mark.parametrize("iterations", [1, 2])
def test_it_computes_what_the_removal_leaves(iterations: int) -> None:
    recipe = f"{SECOND}, pruning_iter: {iterations}"
    removed = Run(recipe_of(recipe), "SGD")
    zeroed = Run(recipe_of(f"{recipe}, remove: false"), "SGD")
    whole = zeroed.size
    losses = removed.steps(3 * STEPS), zeroed.steps(3 * STEPS)
    assert losses[1] == pytest.approx(losses[0], abs=1e-12)
    assert zeroed.size == whole > removed.size
    torch.testing.assert_close(outputs_of(zeroed.model), outputs_of(removed.model))
    # and goes on to, with weight decay and nothing but the masks of its own
    assert zeroed.steps(STEPS) == pytest.approx(removed.steps(STEPS), abs=1e-12)
    zeroed.manager.finalize(zeroed.model)
    for layer in zeroed.model.modules():
        assert not layer._forward_hooks and not layer._forward_pre_hooks
    # a plain model of the same weights gives the same
    plain = Classifier().double()
    plain.load_state_dict(zeroed.model.state_dict())
    expected = outputs_of(removed.model)
    torch.testing.assert_close(outputs_of(plain), expected)
    (ids,), _, _ = next(batches(7))
    shrink(plain, ids)
    assert sum(param.numel() for param in plain.parameters()) < whole
    torch.testing.assert_close(outputs_of(plain), expected)


@pytest.mark.parametrize("at", [2, 7, 12, 14])
def test_resumed_anywhere(at: int, tmp_path: Path) -> None:
    recipe = recipe_of(f"{SECOND}, remove: false")
    straight, first = Run(recipe), Run(recipe)
    losses = straight.steps(16)
    first.steps(at)
    parts = {"optimizer": first.optimizer, "manager": first.manager}
    save_checkpoint(tmp_path / "run.pth", first.model, **parts)
    again = Run(recipe, seed=1)
    parts = {"optimizer": again.optimizer, "manager": again.manager}
    load_checkpoint(tmp_path / "run.pth", again.model, **parts)
    assert again.steps(16 - at) == losses[at:]
    pairs = zip(straight.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_the_stream_cannot_stay() -> None:
    for stage in (0, 1):
        with pytest.raises(ValueError, match=f"remove: false needs stage 2, found {stage}"):
            SRPPruningModifier(0.5, 0.0, 1.0, stage=stage, remove=False)


def test_in_one_shot() -> None:
    torch.manual_seed(0)
    models = [Classifier().double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, remove in zip(models, (True, False), strict=True):
        SRPPruningModifier(0.4, 0.0, 1.0, stage=2, remove=remove).apply(model, grad_sampler=SAMPLER)
    torch.testing.assert_close(*map(outputs_of, models))
