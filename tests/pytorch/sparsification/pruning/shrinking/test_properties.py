"""What holds of SRP as a whole: sums over batches, counts of steps, a rate of one, processes."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import SRPPruningModifier
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.shrinking.choosing import unit_scores
from sparseml.pytorch.units.gated import Gates, gated_units

from .runs import SAMPLER, STEPS, WHOLE, Classifier, Run, batches, outputs_of, recipe_of


def test_scores_over_batches_are_the_sum_of_those_of_each() -> None:
    torch.manual_seed(0)
    model = Classifier().double()
    given = [next(batches(seed)) for seed in range(3)]
    (ids,), _, _ = given[0]
    units = gated_units(model, ids).found

    def scored(some: list[Any]) -> dict[str, torch.Tensor]:
        sampler = {**SAMPLER, "data_loader_builder": lambda: some}
        gates = Gates(model, units)
        found = unit_scores(model, gates, GradientSampler(sampler, {}, "SRP"), len(some))
        gates.detach()
        return found

    together, alone = scored(given), [scored([one]) for one in given]
    for key, total in together.items():
        summed = sum(one[key] for one in alone)
        torch.testing.assert_close(total, summed, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_rate_of_one_changes_nothing(stage: int) -> None:
    nothing = "modifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}"
    plain, kept = Run(nothing), Run(recipe_of(WHOLE.replace("0.4", f"1.0, stage: {stage}")))
    assert kept.steps(3 * STEPS) == pytest.approx(plain.steps(3 * STEPS), rel=1e-12)
    assert kept.size == plain.size and kept.srp[0]._keep == 1.0


@pytest.mark.parametrize(("per_epoch", "accumulated"), [(3, 1), (7, 1), (4, 3)])
def test_steps_are_counted_in_optimizer_steps_of_the_loader(
    per_epoch: int, accumulated: int
) -> None:
    torch.manual_seed(0)
    model = Classifier().double()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    manager = ScheduledModifierManager.from_yaml(recipe_of(WHOLE))
    stepper = manager.modify(model, optimizer, per_epoch, grad_sampler=SAMPLER)
    (srp,) = manager.pruning_modifiers
    gates = []
    for step in range(3 * per_epoch):
        for number in range(accumulated):
            (ids,), _, target = next(batches(step * accumulated + number))
            nn.functional.cross_entropy(model(ids), target).backward()
        stepper.step()
        gates.append(srp._gate if srp._fading is not None else None)
        optimizer.zero_grad()
    assert gates[: per_epoch - 1] == [None] * (per_epoch - 1)  # nothing before the period
    # after a step the gate is that of the next forward pass
    last = 2 * per_epoch - 1
    expected = [1.0 - step / last for step in range(1, last + 1)]
    assert gates[per_epoch:-1] == pytest.approx(expected) and gates[-1] is None


def test_a_sampler_that_gives_nothing_is_told() -> None:
    nothing = {**SAMPLER, "data_loader_builder": list}
    with pytest.raises(RuntimeError, match="the data_loader_builder's loader has no batches"):
        SRPPruningModifier(0.5, 0.0, 1.0).initialize(Classifier(), grad_sampler=nothing)
    both = {**SAMPLER, "data_loader_builder": lambda: [([torch.ones(1)], {"ids": 1}, None)]}
    with pytest.raises(ValueError, match="positional or keyword arguments for the model, not both"):
        SRPPruningModifier(0.5, 0.0, 1.0).initialize(Classifier(), grad_sampler=both)


def test_the_state_of_another_model_is_told() -> None:
    run = Run(recipe_of(WHOLE))
    run.steps(STEPS + 1)
    state = copy.deepcopy(run.manager.state_dict())
    other = Run(recipe_of(WHOLE))
    other.srp[0]._originals = {**other.srp[0]._originals, "stream layers.layers.0.norm1": 9}
    message = (
        "is of another model: it had 8 units in 'stream layers.layers.0.norm1', this one has 9"
    )
    with pytest.raises(ValueError, match=message):
        other.manager.load_structure_state(other.model, state)


RANK = """
import os, sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
sys.modules.pop("runs", None)  # of another folder of tests, where this is forked
from runs import *
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
rank = dist.get_rank()
recipe = recipe_of("compression_rate: 0.4, start_epoch: 1.0, end_epoch: 2.0, stage: 2, "
                   "remove: false, num_scoring_batches: 3, kd_weight: 0.5")
torch.manual_seed(0)
model = DistributedDataParallel(Classifier().double())
own = {**SAMPLER, "data_loader_builder": lambda: batches(rank)}
try:
    SRPPruningModifier(0.5, 0.0, 1.0).initialize(model, grad_sampler=own)
except RuntimeError as error:
    refused = str(error)
optimizer = torch.optim.AdamW(model.parameters(), 0.01)
manager = ScheduledModifierManager.from_yaml(recipe)
stepper = manager.modify(model, optimizer, STEPS, grad_sampler=own)
for step in range(3 * STEPS):
    (ids,), _, target = next(batches(100 + 2 * step + rank))
    logits = model(ids)
    loss = manager.loss_update(
        nn.functional.cross_entropy(logits, target), model, optimizer, stepper.wrapped_epoch,
        STEPS, student_inputs=ids, student_outputs=logits)
    optimizer.zero_grad()
    loss.backward()
    stepper.step()
    if step == STEPS:
        chosen = manager.pruning_modifiers[0]._chosen
state = {name: value for name, value in model.module.state_dict().items()}
torch.save({"refused": refused, "chosen": chosen, "state": state}, f"{sys.argv[2]}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.usefixtures("warm")
def test_two_processes_choose_and_end_alike(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RANK, str(Path(__file__).parent), tmp_path],
            env={**os.environ, **own, "OMP_NUM_THREADS": "1", "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors[0][-2000:]
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert "which several processes cannot do together" in one["refused"]
    assert one["chosen"].keys() == two["chosen"].keys() and one["chosen"]
    for part in ("chosen", "state"):
        assert all(torch.equal(value, two[part][key]) for key, value in one[part].items())
    zeros = one["state"]["layers.layers.0.linear2.weight"].eq(0).all(dim=0)
    assert bool(zeros.any())
    model = Classifier().double()
    model.load_state_dict(one["state"])
    assert bool(outputs_of(model).isfinite().all())
