"""SRP as a recipe has it: chosen, frozen, faded, removed, and resumed anywhere."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseml.pytorch.functional.shrinking.rates import gate_value
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.optim.step_driver import StepDriver
from sparseml.pytorch.sparsification import SRPPruningModifier
from sparseml.pytorch.sparsification.pruning.shrinking.choosing import model_keep_ratio
from sparseml.pytorch.units.gated import gated_units
from sparseml.pytorch.utils.saving.checkpoint import load_checkpoint, save_checkpoint

STEPS = 4
WORDS, WIDTH, FFN, CLASSES = 16, 8, 12, 3


class Classifier(nn.Module):
    """Two post-norm layers of torch between embeddings and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, FFN, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.words(ids)).mean(dim=1))


def _batches(seed: int = 0) -> Iterator[tuple[list[Tensor], dict[str, Any], Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        ids = torch.randint(WORDS, (6, 5), generator=generator)
        yield [ids], {}, ids[:, 0] % CLASSES


SAMPLER = {"data_loader_builder": _batches, "loss_fn": nn.functional.cross_entropy}


def _recipe(*modifiers: str) -> str:
    return "modifiers:\n" + "\n".join(f"  - !SRPPruningModifier {{{one}}}" for one in modifiers)


WHOLE = "compression_rate: 0.4, start_epoch: 1.0, end_epoch: 3.0"


class Run:
    """A training run that may be looked at after every step."""

    def __init__(self, recipe: str, optimizer: str = "AdamW") -> None:
        torch.manual_seed(0)
        self.model = Classifier().double()
        make = getattr(torch.optim, optimizer)
        self.optimizer = make(self.model.parameters(), lr=0.01, weight_decay=0.1)
        self.manager = ScheduledModifierManager.from_yaml(recipe)
        self.manager.initialize(self.model, grad_sampler=SAMPLER)
        self.driver = StepDriver(self.model, self.optimizer, self.manager, STEPS)
        self.srp = [m for m in self.manager.modifiers if isinstance(m, SRPPruningModifier)]

    def step(self) -> float:
        """One step, on a batch that depends on nothing but its number."""
        (ids,), _, target = next(_batches(100 + self.driver.position.steps))
        loss = nn.functional.cross_entropy(self.model.train()(ids), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.driver.before_step()
        self.optimizer.step()
        self.driver.after_step()
        return loss.item()

    def steps(self, count: int) -> list[float]:
        return [self.step() for _ in range(count)]

    @property
    def size(self) -> int:
        return sum(param.numel() for param in self.model.parameters())

    @property
    def widths(self) -> tuple[int, int, int]:
        """Of the stream, of all heads of the first layer, of all feed-forward blocks."""
        layers = list(self.model.layers.layers)
        ffn = sum(layer.linear1.out_features for layer in layers)
        return self.model.words.weight.shape[1], layers[0].self_attn.out_proj.in_features, ffn


@torch.no_grad()
def _outputs(model: nn.Module) -> Tensor:
    (ids,), _, _ = next(_batches(7))
    return model.eval()(ids)


def test_the_keep_ratio_counts_both_sides() -> None:
    model = Classifier()
    (ids,), _, _ = next(_batches())
    keep = model_keep_ratio(model, gated_units(model, ids), 0.3)
    d, f = WIDTH, 2 * FFN
    both = 2 * 4 * d * d + 2 * d * f
    one = WORDS * d + CLASSES * d + 2 * 4 * d + f + 2 * d + 2 * 4 * d  # biases, norms
    assert both * keep**2 + one * keep == pytest.approx(0.3 * (both + one))


@pytest.mark.parametrize("decreasing", ["sa", "sg", "ea"])
def test_gates_fall_and_units_go(decreasing: str) -> None:
    run = Run(_recipe(f"{WHOLE}, decreasing: {decreasing}"))
    whole, (srp,) = run.size, run.srp
    run.steps(STEPS)
    assert srp._gates is None
    for step in range(2 * STEPS):
        if step:
            expected = gate_value(decreasing, step, 2 * STEPS, STEPS)
            assert srp._gate == pytest.approx(expected)
            for key, values in srp._gates.values.items():
                kept = srp._chosen[key]
                assert bool((values[kept] == 1.0).all())
                assert values[~kept].tolist() == pytest.approx([expected] * int((~kept).sum()))
        run.step()
    assert run.size < 0.45 * whole and srp._gates is None
    keep = srp._keep
    assert run.widths == (int(WIDTH * keep), 2 * int(4 * keep), int(2 * FFN * keep))
    for layer in run.model.modules():
        assert not layer._forward_hooks and not layer._forward_pre_hooks
    loss = run.steps(6)
    assert loss[-1] < loss[0]
    run.manager.finalize(run.model)


def test_removal_changes_nothing() -> None:
    run = Run(_recipe(WHOLE))
    run.steps(3 * STEPS - 1)
    seen = {}
    remove = run.srp[0]._remove

    def watched(optimizer: Any) -> None:
        run.srp[0]._lower(0.0)
        seen["before"] = _outputs(run.model)
        remove(optimizer)
        seen["after"] = _outputs(run.model)

    run.srp[0]._remove = watched
    run.step()
    torch.testing.assert_close(seen["after"], seen["before"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD"])
def test_what_fades_stands_still_from_the_first_step(optimizer: str) -> None:
    run = Run(_recipe(WHOLE), optimizer)
    run.steps(STEPS)
    before = {name: param.detach().clone() for name, param in run.model.named_parameters()}
    run.steps(2 * STEPS - 1)
    (srp,) = run.srp
    for units in srp._gates.units:
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
    recipe = _recipe(f"{WHOLE}, pruning_iter: {iterations}")
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
    once, thrice = Run(_recipe(WHOLE)), Run(_recipe(f"{WHOLE}, pruning_iter: 3"))
    once.steps(3 * STEPS)
    sizes = []
    for _ in range(3 * STEPS):
        thrice.step()
        sizes.append(thrice.size)
    assert len(set(sizes)) == 4 and sizes == sorted(sizes, reverse=True)
    assert thrice.widths == once.widths and thrice.srp[0]._removals == 3


def test_two_stages_end_as_one() -> None:
    once = Run(_recipe(WHOLE))
    twice = Run(
        _recipe(
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
    run = Run(_recipe(f"{WHOLE}, num_scoring_batches: 3"))
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
    run = Run(_recipe(WHOLE))
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
