"""SRP as a recipe has it: chosen, frozen, faded, removed, and resumed anywhere."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.functional.shrinking.rates import gate_value
from sparseml.pytorch.sparsification import SRPPruningModifier
from sparseml.pytorch.sparsification.pruning.shrinking.choosing import model_keep_ratio
from sparseml.pytorch.units.gated import gated_units
from sparseml.pytorch.utils.saving.checkpoint import load_checkpoint, save_checkpoint

from .runs import (
    CLASSES,
    FFN,
    SAMPLER,
    STEPS,
    WHOLE,
    WIDTH,
    WORDS,
    Classifier,
    Run,
    batches,
    outputs_of,
    recipe_of,
)


def test_the_keep_ratio_counts_both_sides() -> None:
    model = Classifier()
    (ids,), _, _ = next(batches())
    keep = model_keep_ratio(model, gated_units(model, ids), 0.3)
    d, f = WIDTH, 2 * FFN
    both = 2 * 4 * d * d + 2 * d * f
    one = WORDS * d + CLASSES * d + 2 * 4 * d + f + 2 * d + 2 * 4 * d  # biases, norms
    assert both * keep**2 + one * keep == pytest.approx(0.3 * (both + one))


@pytest.mark.parametrize("decreasing", ["sa", "sg", "ea"])
def test_gates_fall_and_units_go(decreasing: str) -> None:
    run = Run(recipe_of(f"{WHOLE}, decreasing: {decreasing}"))
    whole, (srp,) = run.size, run.srp
    run.steps(STEPS)
    assert srp._fading is None
    for step in range(2 * STEPS):
        if step:
            expected = gate_value(decreasing, step, 2 * STEPS, STEPS)
            assert srp._gate == pytest.approx(expected)
            for key, values in srp._fading.gates.values.items():
                kept = srp._chosen[key]
                assert bool((values[kept] == 1.0).all())
                assert values[~kept].tolist() == pytest.approx([expected] * int((~kept).sum()))
        run.step()
    assert run.size < 0.45 * whole and srp._fading is None
    keep = srp._keep
    assert run.widths == (int(WIDTH * keep), 2 * int(4 * keep), int(2 * FFN * keep))
    for layer in run.model.modules():
        assert not layer._forward_hooks and not layer._forward_pre_hooks
    loss = run.steps(6)
    assert loss[-1] < loss[0]
    run.manager.finalize(run.model)


def test_removal_changes_nothing() -> None:
    run = Run(recipe_of(WHOLE))
    run.steps(3 * STEPS - 1)
    seen = {}
    end = run.srp[0]._end_fading

    def watched(optimizer: Any) -> None:
        run.srp[0]._lower(0.0)
        seen["before"] = outputs_of(run.model)
        end(optimizer)
        seen["after"] = outputs_of(run.model)

    run.srp[0]._end_fading = watched
    run.step()
    torch.testing.assert_close(seen["after"], seen["before"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD"])
def test_what_fades_stands_still_from_the_first_step(optimizer: str) -> None:
    run = Run(recipe_of(WHOLE), optimizer)
    run.steps(STEPS)
    before = {name: param.detach().clone() for name, param in run.model.named_parameters()}
    run.steps(2 * STEPS - 1)
    (srp,) = run.srp
    for units in srp._fading.gates.units:
        gone = ~srp._chosen[units.key]
        assert bool(gone.any())
        for member in units.group.members:
            slices = (member.index >= 0) & gone[member.index]
            now = run.model.get_parameter(member.param).movedim(member.dim, 0)
            old = before[member.param].movedim(member.dim, 0)
            assert torch.equal(now[slices], old[slices])
    assert not torch.equal(run.model.head.bias, before["head.bias"])


@pytest.mark.parametrize("at", [2, 4, 5, 9, 12, 13])
@pytest.mark.parametrize("iterations", [1, 2])
def test_resumed_anywhere(at: int, iterations: int, tmp_path: Path) -> None:
    recipe = recipe_of(f"{WHOLE}, pruning_iter: {iterations}")
    straight = Run(recipe)
    losses = straight.steps(15)
    first = Run(recipe)
    first.steps(at)
    save_checkpoint(
        tmp_path / "run.pth", first.model, optimizer=first.optimizer, manager=first.manager
    )
    again = Run(recipe)
    load_checkpoint(
        tmp_path / "run.pth", again.model, optimizer=again.optimizer, manager=again.manager
    )
    assert again.steps(15 - at) == losses[at:]
    pairs = zip(straight.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_several_iterations_end_as_one() -> None:
    once, thrice = Run(recipe_of(WHOLE)), Run(recipe_of(f"{WHOLE}, pruning_iter: 3"))
    once.steps(3 * STEPS)
    sizes = []
    for _ in range(3 * STEPS):
        thrice.step()
        sizes.append(thrice.size)
    assert len(set(sizes)) == 4 and sizes == sorted(sizes, reverse=True)
    assert thrice.widths == once.widths and thrice.srp[0]._removals == 3


def test_two_stages_end_as_one() -> None:
    once = Run(recipe_of(WHOLE))
    twice = Run(
        recipe_of(
            "compression_rate: 0.4, stage: 1, start_epoch: 0.0, end_epoch: 1.0",
            "compression_rate: 0.4, stage: 2, start_epoch: 1.0, end_epoch: 2.0",
        )
    )
    stream, heads, ffn = twice.widths
    once.steps(3 * STEPS)
    twice.steps(STEPS)
    assert twice.widths == (once.widths[0], heads, ffn) and once.widths[0] < stream
    twice.steps(STEPS)
    assert twice.widths == once.widths


def test_scoring_leaves_no_trace() -> None:
    run = Run(recipe_of(f"{WHOLE}, num_scoring_batches: 3"))
    run.step()
    before = copy.deepcopy((run.model.state_dict(), run.optimizer.state_dict()["state"]))
    random = torch.get_rng_state()
    gradients = [param.grad.clone() for param in run.model.parameters()]
    run.srp[0]._choose()
    assert torch.equal(torch.get_rng_state(), random) and run.model.training
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[0][name])
    for param, grad in zip(run.model.parameters(), gradients, strict=True):
        assert torch.equal(param.grad, grad)


def test_moments_follow_what_is_left() -> None:
    run = Run(recipe_of(WHOLE))
    run.steps(3 * STEPS)
    for param in run.model.parameters():
        assert run.optimizer.state[param]["exp_avg"].shape == param.shape
        assert run.optimizer.state[param]["step"] == 3 * STEPS


def test_one_shot_and_a_rate_of_one() -> None:
    model = Classifier()
    whole = sum(param.numel() for param in model.parameters())
    SRPPruningModifier(1.0, 0.0, 1.0).apply(model, grad_sampler=SAMPLER)
    assert sum(param.numel() for param in model.parameters()) == whole
    SRPPruningModifier(0.3, 0.0, 1.0, min_keep=2).apply(model, grad_sampler=SAMPLER)
    assert sum(param.numel() for param in model.parameters()) < 0.35 * whole
    assert model.layers.layers[0].self_attn.out_proj.in_features == 4


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"compression_rate": 0.0}, "compression_rate .* found 0"),
            ({"compression_rate": 1.5}, "compression_rate .* found 1.5"),
            ({"stage": 3}, "stage must be one of 0, 1, 2, found 3"),
            ({"decreasing": "linear"}, "decreasing must be 'sa', 'sg', 'ea' or 'eg'"),
            ({"end_epoch": 0.0}, "end_epoch .* greater than start_epoch"),
        ],
    )
    def test_fields(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            SRPPruningModifier(
                **{"compression_rate": 0.5, "start_epoch": 0.0, "end_epoch": 1.0, **fields}
            )

    def test_a_model_without_what_the_stage_takes(self) -> None:
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        sampler = {
            "data_loader_builder": lambda: iter([([torch.ones(2, 4)], {}, None)] * 3),
            "loss_fn": lambda output, target: output.sum(),
        }
        with pytest.raises(ValueError, match=r"finds nothing to remove in stage 1 \(stream\)"):
            SRPPruningModifier(0.5, 0.0, 1.0, stage=1).initialize(model, grad_sampler=sampler)

    def test_no_sampler(self) -> None:
        with pytest.raises(RuntimeError, match="grad_sampler"):
            SRPPruningModifier(0.5, 0.0, 1.0).initialize(Classifier())
