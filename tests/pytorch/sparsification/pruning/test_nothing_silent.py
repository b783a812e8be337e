"""What nobody wants of pruning is told, with the name of the parameter."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager

ONE_SHOT = """
pruning_modifiers:
  - !{name}
      params: ['re:.*weight']
      init_sparsity: 0.5
      final_sparsity: {sparsity}
      start_epoch: 0.0
      end_epoch: 1.0
      update_frequency: 1.0
      {more}
"""
SECOND_ORDER = {
    "CAPruningModifier": "num_grads: 8",
    "OBSPruningModifier": "num_grads: 8",
    "FastCAPruningModifier": "num_grads: 8",
    "MFACPruningModifier": "num_grads: 8",
}


class TwoPaths(nn.Module):
    """The loss does not depend on one of its layers, as its factor is zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.used, self.dead = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.used(inputs) + 0.0 * self.dead(inputs)


def _sampler() -> dict[str, Any]:
    def batches() -> Any:
        generator = torch.Generator().manual_seed(1)
        while True:
            inputs = torch.randn(2, 6, generator=generator)
            yield [inputs], {}, torch.randint(0, 4, (2,), generator=generator)

    return {"data_loader_builder": batches, "loss_function": nn.functional.cross_entropy}


def _applied(model: nn.Module, name: str, more: str = "", sparsity: float = 0.5) -> None:
    recipe = ONE_SHOT.format(name=name, more=more, sparsity=sparsity)
    ScheduledModifierManager.from_yaml(recipe).apply(model, grad_sampler=_sampler())


@pytest.mark.parametrize("more", ["", "damp: auto", "global_sparsity: True, damp: auto"])
def test_fast_cap_prunes_a_layer_without_gradients_by_magnitude(
    more: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = TwoPaths()
    weight = model.dead.weight.detach().clone()
    _applied(model, "FastCAPruningModifier", "\n      ".join(["num_grads: 8", *more.split(", ")]))
    if "global" in more:
        assert caplog.text.count("all gradients of dead.weight are zero") == 1
        return
    kept = model.dead.weight != 0
    assert int(kept.sum()) == 12 and torch.equal(model.dead.weight[kept], weight[kept])
    assert weight[kept].abs().min() >= weight[~kept].abs().max()
    assert caplog.text.count("all gradients of dead.weight are zero") == 1


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_weights_that_are_not_finite_are_named(name: str) -> None:
    model = TwoPaths()
    with torch.no_grad():
        model.dead.weight[1, 2] = torch.inf
    with pytest.raises((ValueError, RuntimeError), match=r"dead\.weight"):
        _applied(model, name, SECOND_ORDER[name])


def test_a_layer_of_which_nothing_is_left_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = TwoPaths()
    with torch.no_grad():
        model.dead.weight.mul_(1e-3)
    _applied(model, "GlobalMagnitudePruningModifier")
    told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert told == ["GlobalMagnitudePruningModifier: nothing is left of dead.weight"]


def test_training_to_nan_is_told_also_where_masks_do_not_look_at_weights(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = TwoPaths()
    recipe = ONE_SHOT.format(name="MovementPruningModifier", more="", sparsity=0.5)
    manager = ScheduledModifierManager.from_yaml(recipe)
    optimizer = manager.modify(model, torch.optim.SGD(model.parameters(), 0.1), steps_per_epoch=4)
    for step in range(4):
        loss = model(torch.full((2, 6), float("nan") if step == 3 else 1.0)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    summary = str(manager.summary())
    manager.finalize(model)
    told = "MovementPruningModifier: not all numbers are finite in used.weight, dead.weight"
    assert told in caplog.text and told in summary


FULL = """
import dataclasses, sys, torch
from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import put_aside

@dataclasses.dataclass(frozen=True)
class Inverse:
    inverse: torch.Tensor

small, large = (Inverse(torch.ones(size, 8, 8)) for size in (4, 4000))
assert put_aside([(None, small)], sys.argv[1])[0][1].inverse.eq(1).all()
try:
    put_aside([(None, large)], sys.argv[1])
except OSError as error:
    print(error)
"""
_MOUNTS = ["unshare", "-Urm", "bash", "-c", 'mount -t tmpfs -o size=256k none "$0" && exec "$@"']


def test_matrices_that_a_disk_has_no_room_for_are_an_error(tmp_path: Path) -> None:
    """Written to a mapped file they would be the end of the process, without a word."""
    if not shutil.which("unshare") or subprocess.run([*_MOUNTS, tmp_path, "true"]).returncode:
        pytest.skip("no file system can be mounted here")
    words = [*_MOUNTS, tmp_path, sys.executable, "-c", FULL, tmp_path]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "No space left on device: a file of inverse Fisher matrices needs 1.0 MB" in done.stdout
    assert str(tmp_path) in done.stdout
