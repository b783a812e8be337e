"""``effort``, ``layer_floor``, and gradients of samples where layers allow them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparseml
from sparseml.pytorch.functional.budgets import Global
from sparseml.pytorch.functional.patterns import parse_pattern
from sparseml.pytorch.functional.select import select
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import (
    CAPruningModifier,
    FastCAPruningModifier,
    GlobalMagnitudePruningModifier,
    MFACPruningModifier,
    OBSPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.settings.effort import PRESETS
from sparseml.pytorch.utils.params import iter_layer_params

KINDS = [CAPruningModifier, OBSPruningModifier, MFACPruningModifier, FastCAPruningModifier]
RANGE = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 1.0}


def _modifier(kind: type, sparsity: float = 0.8, **fields: Any) -> Any:
    goal = {"init_sparsity": sparsity, "final_sparsity": sparsity, "params": ["re:.*weight"]}
    return kind(**{**goal, **RANGE, **fields})


def _unlike() -> nn.Module:
    """The first layer's weights are a thousandth of the second's."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    with torch.no_grad():
        net[0].weight.mul_(1e-3)
    return net


def _batches() -> Iterator[tuple[list[Tensor], dict[str, Any], Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        inputs = torch.randn(8, 8, generator=generator)
        yield [inputs], {}, torch.randint(0, 8, (8,), generator=generator)


SAMPLER = {
    "data_loader_builder": _batches,
    "loss_fn": nn.functional.cross_entropy,
    "progress_bar": False,
}


class TestEffort:
    @pytest.mark.parametrize("effort", PRESETS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_sets_what_the_modifier_has(self, kind: type, effort: str) -> None:
        modifier = _modifier(kind, num_grads=7, effort=effort)
        for name, value in PRESETS[effort].items():
            assert getattr(modifier, name, value) == value
        if kind is FastCAPruningModifier:
            assert (modifier.ranking, modifier.weight_update) == ("elimination", "joint")
            assert modifier.fisher == ("both" if effort == "best" else "gradients")
        again = ScheduledModifierManager.from_yaml(f"modifiers:\n  - {modifier}")
        assert str(again.modifiers[0]) == str(modifier)

    @pytest.mark.parametrize("none", [None, "none"])
    def test_none_sets_nothing(self, none: str | None) -> None:
        modifier = _modifier(CAPruningModifier, num_grads=7, effort=none)
        assert (modifier.num_grads, modifier.damp) == (7, 1e-7)
        assert str(modifier) == str(_modifier(CAPruningModifier, num_grads=7))

    def test_what_is_set_later_counts(self) -> None:
        modifier = _modifier(CAPruningModifier)
        modifier.effort = "fast"
        modifier.num_grads = 9
        assert (modifier.num_grads, modifier.damp) == (9, "auto")

    @pytest.mark.parametrize("kind", KINDS)
    def test_numbers_beside_it_are_told_to_go(
        self, kind: type, caplog: pytest.LogCaptureFixture
    ) -> None:
        modifier = _modifier(kind, num_grads=7, damp=1e-3, effort="fast")
        modifier.effort = "best"  # its own numbers may go unsaid
        ScheduledModifierManager.from_yaml(f"modifiers:\n  - {modifier}")
        assert caplog.messages == [
            f"{kind.__name__}: effort: fast takes the place of damp: 0.001, num_grads: 7; leave "
            "out one or the other"
        ]

    def test_another_word(self) -> None:
        with pytest.raises(ValueError, match=r"effort must be.*balanced.*found 'bset'"):
            _modifier(CAPruningModifier, effort="bset")

    def test_efforts_grow(self) -> None:
        work = [(one["num_grads"], one["num_recomputations"]) for one in PRESETS.values()]
        assert work == sorted(work)
        assert list(PRESETS) == ["fast", "balanced", "best"]

    def test_in_one_call(self) -> None:
        net = _unlike()
        data = [(inputs[0], labels) for inputs, _, labels in _batches()]
        done = sparseml.prune(net, "cap", 0.5, data=data, effort="fast")
        assert "effort: fast" in done.recipe
        assert "damp: auto chose" in str(done)
        assert done.pruned == 0.5
        with pytest.raises(ValueError, match="effort must be"):
            sparseml.prune(net, "cap", 0.5, data=data, effort="most")


class TestFloor:
    @pytest.mark.parametrize("kind", [GlobalMagnitudePruningModifier, *KINDS[:3]])
    def test_no_layer_is_emptied_and_the_total_stays(
        self, kind: type, caplog: pytest.LogCaptureFixture
    ) -> None:
        fields: dict[str, Any] = {}
        if kind is not GlobalMagnitudePruningModifier:
            fields = {"num_grads": 30, "fisher_block_size": 8, "global_sparsity": True}
        kept = {}
        for floor in (None, 0.1):
            net = _unlike()
            pruner = _modifier(kind, 0.75, layer_floor=floor, **fields)
            with caplog.at_level(logging.INFO):
                pruner.initialize(net, float("inf"), grad_sampler=SAMPLER)
            pruner.finalize(net)
            kept[floor] = [int((net[place].weight != 0).sum()) for place in (0, 2)]
            assert sum(kept[floor]) == 32
        assert kept[None][0] == 0
        assert kept[0.1][0] == 2, "0.1 of a quarter of 64, rounded up"
        told = "layer_floor kept weights that ranking all together would have pruned, in 0.weight"
        assert [told in text for text in caplog.messages].count(True) == 1

    def test_where_nothing_is_at_stake_nothing_changes(self) -> None:
        torch.manual_seed(0)
        scores = [torch.rand(8, 8), torch.rand(16, 8)]
        pattern = parse_pattern("unstructured")
        for one, other in zip(
            select(scores, pattern, Global(floor=0.05), 0.7),
            select(scores, pattern, Global(), 0.7),
            strict=True,
        ):
            assert torch.equal(one, other)

    @pytest.mark.parametrize("pattern", ["unstructured", "block4", "2:4", "filter"])
    @pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.999, 1.0])
    def test_it_never_makes_a_target_impossible(self, pattern: str, sparsity: float) -> None:
        scores = [torch.rand(8, 8) * scale for scale in (1e-3, 1.0, 1e3)] + [torch.rand(1, 4)]
        cut = parse_pattern(pattern)
        target = min(sparsity, cut.full_sparsity)
        counts = [
            sum(int(mask.sum()) for mask in select(scores, cut, budget, target))
            for budget in (Global(), Global(floor=0.05))
        ]
        # a filter that is all of its tensor stays, and as many weights as others can make up for
        assert abs(counts[0] - counts[1]) <= (4 if pattern == "filter" else 0)

    def test_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="layer_floor"):
            _modifier(CAPruningModifier, layer_floor=1.5)


class Twice(nn.Module):
    """Runs one layer twice, so that samples have no gradients of their own to be had."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(self.layer(inputs))


class TestSamplesWhereTheyCanBe:
    def test_as_samples_where_layers_allow_it(self) -> None:
        outcomes = [
            _modifier(
                OBSPruningModifier, fisher_samples=kind, num_grads=30, fisher_block_size=8
            ).outcome(_unlike(), grad_sampler=SAMPLER)
            for kind in ("sample", "auto")
        ]
        for name, (_, weight) in outcomes[0].items():
            assert torch.equal(weight, outcomes[1][name].weight)

    def test_as_batches_else(self, caplog: pytest.LogCaptureFixture) -> None:
        torch.manual_seed(0)
        net = Twice()
        outcomes = [
            _modifier(
                OBSPruningModifier, fisher_samples=kind, num_grads=30, fisher_block_size=8
            ).outcome(net, grad_sampler=SAMPLER)
            for kind in ("batch", "auto")
        ]
        for name, (_, weight) in outcomes[0].items():
            assert torch.equal(weight, outcomes[1][name].weight)
        told = [text for text in caplog.messages if "one gradient per batch is taken" in text]
        assert len(told) == 1
        assert "runs more than once" in told[0]

    def test_a_resumed_run_keeps_out_as_many_as_one_that_was_not_interrupted(self) -> None:
        net = Twice()
        samplers = [GradientSampler(SAMPLER, {}, "it", None) for _ in range(2)]
        list(samplers[0].gradients(net, list(iter_layer_params(net))[:1], 4))
        samplers[1].load_progress_state(samplers[0].progress_state())
        one, other = (sampler.keep_out(net, 1600)[0].batches for sampler in samplers)
        assert all(torch.equal(a[2], b[2]) for a, b in zip(one, other, strict=True))

    def test_parts_of_a_large_batch_are_the_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = "sparseml.pytorch.sparsification.pruning.sampling.sample_capture._MOST_VALUES"
        found = []
        for most in (1 << 28, 200):
            monkeypatch.setattr(name, most)
            pruner = _modifier(
                OBSPruningModifier, fisher_samples="sample", num_grads=30, fisher_block_size=8
            )
            found.append(pruner.outcome(_unlike(), grad_sampler=SAMPLER))
        for key, (mask, weight) in found[0].items():
            assert torch.equal(mask, found[1][key].mask)
            torch.testing.assert_close(weight, found[1][key].weight)
