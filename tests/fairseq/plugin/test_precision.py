"""Training in 16 bits: fairseq's float32 copies, flat or not, and what Adam remembers of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sparseml.fairseq.masters import MasterOptimizer, masters_of
from sparseml.fairseq.recipe_run import RecipeRun
from sparseml.pytorch.sparsification.pruning.masks.optimizer_state import forget

GRADUAL = """
modifiers:
  - !GMPruningModifier
      params: [{}]
      init_sparsity: 0.25
      final_sparsity: 0.75
      start_epoch: 0.0
      end_epoch: 3.0
      update_frequency: 1.0
"""
COPIES = {
    "flat": "--fp16",
    "one each": "--fp16 --fp16-no-flatten-grads",
    "none": "--memory-efficient-fp16",
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_and_moments_are_masked(
    fairseq: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)  # where the flat copy lies
    state, seen = RecipeRun.state, []

    def at_save(run: RecipeRun) -> Any:
        masters = masters_of(run.trainer.optimizer)
        copies = {id(master.param): master.copy() for master in masters}
        assert bool(copies) == (kind != "none")
        masks = run.manager.pruning_modifiers[0]._masks  # type: ignore[attr-defined]
        moments = 0
        for param, mask in zip(masks.params, masks.masks, strict=True):
            exact = copies.get(id(param), param.detach())
            assert not exact[~mask].any()
            assert torch.equal(exact.half(), param)
            known = run.optimizer.state.get(param, {})
            assert not known.get("exp_avg", exact)[~mask].any()
            moments += int(known["exp_avg"].ne(0).sum())
        assert moments
        seen.append(run)
        return state(run)

    monkeypatch.setattr(RecipeRun, "state", at_save)
    recipe = fairseq.write("gradual.yaml", GRADUAL.format(fairseq.layers))
    flags = f"{COPIES[kind]} --fp16-init-scale 4 --max-epoch 4 --disable-validation"
    folder = fairseq.train("out", f"{flags} --no-epoch-checkpoints", recipe)
    assert len(seen) == 4
    assert fairseq.sparse(folder / "checkpoint_last.pt")


def test_a_part_of_a_flat_copy_is_forgotten_by_itself() -> None:
    params = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(4))]
    flat = torch.nn.Parameter(torch.ones(10))

    class Flat:
        fp16_params, fp32_params = params, {None: flat}

    inner = torch.optim.Adam([flat])
    flat.grad = torch.ones(10)
    inner.step()
    masters = masters_of(Flat)
    optimizer = MasterOptimizer(inner, masters)
    assert optimizer.state[params[1]]["exp_avg"].shape == (4,)
    gradient = masters[1].copy().grad
    assert gradient is not None
    gradient.zero_()
    assert flat.grad.tolist() == [1.0] * 6 + [0.0] * 4
    forget(optimizer, [params[1]])
    moment = inner.state[flat]["exp_avg"]
    assert (moment[:6] > 0).all() and not moment[6:].any()
    assert inner.state[flat]["step"] == 1
    forget(optimizer)
    assert not inner.state and len(optimizer.state) == 0
