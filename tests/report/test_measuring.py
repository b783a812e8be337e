"""Latency, storage, operations and zeros of models."""

from __future__ import annotations

import gc
import gzip
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.report import (
    asked_schedule,
    count_flops,
    describe_model,
    layer_sparsities,
    measure_latency,
    measure_storage,
)

UNIFORM = """
modifiers:
  - !MagnitudePruningModifier
    params: {params}
    init_sparsity: 0.0
    final_sparsity: {final}
    start_epoch: 0.0
    end_epoch: 2.0
    update_frequency: 0.5
    inter_func: linear
"""


class Recorder(nn.Module):
    """Notes the modes that it is called in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, bool, bool]] = []
        self.frozen = nn.Dropout()

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        self.seen.append((self.training, torch.is_inference_mode_enabled(), gc.isenabled()))
        return first if second is None else first + second


def test_latency_is_ordered_and_leaves_no_trace() -> None:
    model = Recorder()
    model.frozen.eval()
    found = measure_latency({"a": model}, torch.ones(4, 2), rounds=7, warmup=3)["a"]
    assert (found.batch_size, found.device, found.warmup) == (4, "cpu", 3)
    assert found.rounds >= 7
    assert found.threads == torch.get_num_threads()
    times = [
        found.fastest_ms,
        found.lower_quartile_ms,
        found.median_ms,
        found.upper_quartile_ms,
        found.slowest_ms,
    ]
    assert times == sorted(times)
    assert found.samples_per_second == pytest.approx(4 * 1000 / found.median_ms)
    assert model.seen == [(False, True, False)] * (found.rounds + 3)
    assert model.training
    assert not model.frozen.training
    assert gc.isenabled()


def test_models_take_turns() -> None:
    calls: list[str] = []

    class Named(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, batch: Tensor) -> Tensor:
            calls.append(self.name)
            return batch

    measure_latency({name: Named(name) for name in "abc"}, torch.ones(1, 1), rounds=8, warmup=1)
    rounds = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


@pytest.mark.parametrize(
    ("drifts", "seconds", "rounds", "settled"),
    [
        (0, 5.0, 8, True),
        (10, 5.0, 96, True),  # the slow ones are less than a quarter of the earlier half
        (10, 0.0, 8, False),  # there is no time to wait for that
        (10**9, 0.5, 16, False),  # and it does not come
    ],
)
def test_rounds_go_on_until_the_quartiles_settle(
    monkeypatch: pytest.MonkeyPatch, drifts: int, seconds: float, rounds: int, settled: bool
) -> None:
    clock = SimpleNamespace(now=0.0, calls=0)

    class Slow(nn.Module):
        """Takes ten milliseconds, and longer and longer in its first passes."""

        def forward(self, batch: Tensor) -> Tensor:
            clock.calls += 1
            clock.now += 0.01 + 0.005 * clock.calls * (clock.calls <= drifts)
            return batch

    monkeypatch.setattr("sparseml.report.latency.time.perf_counter", lambda: clock.now)
    found = measure_latency({"a": Slow()}, torch.ones(1, 1), 8, 0, seconds)["a"]
    assert (found.rounds, found.settled) == (rounds, settled)


@pytest.mark.parametrize("inputs", [{"first": 1, "second": 2}, (1, 2)])
def test_inputs_of_several_tensors(inputs: Any) -> None:
    ones = torch.ones(3, 2)
    batch = dict.fromkeys(inputs, ones) if isinstance(inputs, dict) else (ones, ones)
    assert measure_latency({"a": Recorder()}, batch, rounds=2)["a"].batch_size == 3


@pytest.mark.parametrize("wrong", [{"rounds": 1}, {"warmup": -1}, {"models": {}}])
def test_latency_refuses(wrong: dict[str, Any]) -> None:
    given = {"models": {"a": Recorder()}, "inputs": torch.ones(1, 1), **wrong}
    with pytest.raises(ValueError, match="rounds >= 2"):
        measure_latency(**given)


def test_storage_of_known_tensors() -> None:
    half_zero = torch.randn(1000)
    half_zero[:500] = 0
    full, flags = torch.randn(10, 10, dtype=torch.float64), torch.ones(9, dtype=torch.bool)
    found = measure_storage({"a": half_zero, "b": full, "c": flags})
    assert found.dense == 4000 + 800 + 9
    # the second and the third tensor are smaller as they are
    assert found.bitmask == (125 + 2000) + 800 + 9
    raw = b"".join(t.numpy().tobytes() for t in (half_zero, full, flags))
    assert found.gzip == len(gzip.compress(raw, compresslevel=6))
    assert found.zstd is not None
    assert found.zstd < found.dense


def test_storage_counts_tied_weights_once_and_knows_odd_tensors() -> None:
    shared = torch.randn(6, 4)
    tied = measure_storage({"a": shared, "b": shared, "transposed": torch.zeros(0)})
    assert tied.dense == shared.numel() * 4
    odd = {"bf": torch.randn(5).bfloat16(), "t": torch.randn(3, 4).t(), "scalar": torch.tensor(3)}
    assert measure_storage(odd).dense == 10 + 48 + 8


@pytest.mark.parametrize("tensor", [torch.empty(2, device="meta"), torch.eye(2).to_sparse()])
def test_storage_names_what_it_cannot_measure(tensor: Tensor) -> None:
    with pytest.raises(ValueError, match="'weight' is"):
        measure_storage({"weight": tensor})


def test_storage_without_zstandard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    assert measure_storage({"a": torch.ones(3)}).zstd is None


def test_flops_of_layers_by_hand() -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))
    model[0].weight.data[:5] = 0
    found = count_flops(model, torch.ones(3, 6))
    assert found.dense == 2 * 3 * (6 * 10 + 10 * 4)
    assert found.sparse == 2 * 3 * (6 * 5 + 10 * 4)
    assert found.batch_size == 3
    conv = nn.Conv2d(4, 8, 3, groups=2)
    conv.weight.data[:2] = 0
    found = count_flops(conv, torch.ones(1, 4, 5, 5))
    assert found.dense == 2 * 9 * 8 * 2 * 9
    assert found.sparse == found.dense * 3 // 4


def test_flops_of_attention_are_counted_where_torch_takes_a_short_cut() -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    batch = torch.ones(2, 5, 8)
    weights = 4 * 8 * 8 + 2 * 8 * 16
    attention = 2 * (2 * 2 * 2 * 5 * 5 * 4)  # scores and values, of 2 x 2 heads of width 4
    found = count_flops(layer, batch)
    assert found.dense == found.sparse == 2 * 10 * weights + attention
    # the layer calls neither as a module: it multiplies by the weights, and by views of them
    layer.self_attn.out_proj.weight.data.zero_()
    assert count_flops(layer, batch).sparse == found.dense - 2 * 10 * 8 * 8
    layer.self_attn.in_proj_weight.data[:8] = 0
    assert count_flops(layer, batch).sparse == found.dense - 2 * 2 * 10 * 8 * 8
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_flops_do_not_take_zero_activations_for_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4))
    model[0].weight.data.fill_(-1.0)
    found = count_flops(model, torch.ones(2, 4))
    assert found.sparse == found.dense == 2 * 2 * 32


def test_describe_model() -> None:
    model = nn.Linear(4, 3)
    model.weight.data[0] = 0
    found = describe_model(nn.DataParallel(model), {"accuracy": 0.5}, torch.ones(2, 4), "text")
    assert (found.parameters, found.nonzero) == (15, 11)
    assert found.metrics == {"accuracy": 0.5}
    assert found.description == "text"
    assert found.storage is not None
    assert found.flops is not None
    assert found.storage.dense == 60
    assert found.flops.sparse == 2 * 2 * 8
    assert describe_model(model).flops is None


def manager(params: str, final: str) -> ScheduledModifierManager:
    return ScheduledModifierManager.from_yaml(UNIFORM.format(params=params, final=final))


def test_layers_tell_what_was_asked() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    recipe = manager("[]", "{0.5: ['0.weight'], 0.25: ['re:1.*weight', '0.bias']}")
    recipe.apply(model)
    found = {layer.name: layer for layer in layer_sparsities(model, recipe)}
    assert list(found) == ["0.weight", "0.bias", "1.weight", "2.weight"]
    assert [layer.asked for layer in found.values()] == [0.5, 0.25, 0.25, None]
    assert [layer.zeros for layer in found.values()] == [8, 1, 4, 0]
    assert found["0.weight"].shape == [4, 4]
    assert found["0.weight"].kind == "Linear"
    assert found["0.weight"].scope == "layer"
    assert [layer.asked for layer in layer_sparsities(model)] == [None] * 3


def test_layers_know_global_budgets_and_tied_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    recipe = manager("['re:.*weight']", "0.5")
    text = str(recipe).replace("!MagnitudePruning", "!GlobalMagnitudePruning")
    (layer,) = layer_sparsities(model, ScheduledModifierManager.from_yaml(text))
    assert (layer.name, layer.asked, layer.scope) == ("0.weight", 0.5, "global")


def test_the_schedule_is_what_the_modifier_will_ask_for() -> None:
    schedule = asked_schedule(manager("__ALL__", "0.8"), steps_per_epoch=10)
    (modifier,) = schedule.modifiers
    assert [(u.step, u.lowest, u.highest) for u in modifier.updates] == [
        (0, 0.0, 0.0),
        (5, pytest.approx(0.2), pytest.approx(0.2)),
        (10, pytest.approx(0.4), pytest.approx(0.4)),
        (15, pytest.approx(0.6), pytest.approx(0.6)),
        (20, 0.8, 0.8),
    ]


def test_a_schedule_of_many_updates_is_thinned() -> None:
    text = UNIFORM.format(params="__ALL__", final="0.8").replace("frequency: 0.5", "frequency: -1")
    recipe = ScheduledModifierManager.from_yaml(text)
    (modifier,) = asked_schedule(recipe, steps_per_epoch=3000).modifiers
    assert 250 < len(modifier.updates) <= 501
    assert modifier.updates[-1].highest == 0.8
    assert asked_schedule(recipe, steps_per_epoch=2_000_000).modifiers == []


def test_different_targets_and_modifiers_without_one() -> None:
    text = UNIFORM.format(params="[]", final="{0.5: ['0.weight'], 0.8: ['1.weight']}")
    text += "  - !ConstantPruningModifier\n    params: __ALL__\n    start_epoch: 1.0\n"
    schedule = asked_schedule(ScheduledModifierManager.from_yaml(text), steps_per_epoch=4)
    (modifier,) = schedule.modifiers
    assert (modifier.updates[-1].lowest, modifier.updates[-1].highest) == (0.5, 0.8)


def test_rounds_are_told_as_they_are_done() -> None:
    told: list[tuple[int, str]] = []
    measure_latency(
        {"a": nn.Identity()},
        torch.ones(2, 2),
        rounds=3,
        warmup=1,
        seconds=0.0,
        advance=lambda *news: told.append(news),
    )
    assert told == [(1, ""), (2, ""), (3, ""), (4, "")]
