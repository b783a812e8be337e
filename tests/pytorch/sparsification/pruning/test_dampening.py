"""``damp: auto``: several dampenings are tried on the model, and judged by data kept out."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sparseml.pytorch.functional.second_order.dampening import HIGHEST, LOWEST
from sparseml.pytorch.sparsification.pruning import (
    CAPruningModifier,
    FastCAPruningModifier,
    MFACPruningModifier,
    OBSPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.methods.trials import best_of_decades
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import SamplingData
from sparseml.pytorch.sparsification.pruning.sampling.held_out import (
    KeptOut,
    joined,
    wanted_batches,
)

KINDS = [CAPruningModifier, OBSPruningModifier, MFACPruningModifier, FastCAPruningModifier]
GLOBAL = {"global_sparsity": True}
SIZE = 8


def _data(count: int = 80) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randn(SIZE, 4, generator=generator)
    inputs = torch.randn(count * 8, SIZE, generator=generator)
    return list(zip(inputs.split(8), (inputs @ truth).argmax(1).split(8), strict=True))


def _trained(norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    middle: list[nn.Module] = [nn.BatchNorm1d(16)] if norm else []
    net = nn.Sequential(nn.Linear(SIZE, 16), *middle, nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for inputs, labels in _data() * 2:
        optimizer.zero_grad()
        cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    return net


def _sampler(data: Any = None, loss: Any = cross_entropy) -> dict[str, Any]:
    given = _data() if data is None else data

    def build() -> Iterator[tuple[list[Tensor], dict[str, Any], Tensor]]:
        for inputs, labels in given() if callable(given) else given:
            yield [inputs], {}, labels

    return {"data_loader_builder": build, "loss_fn": loss, "progress_bar": False}


def _modifier(kind: type = CAPruningModifier, **changes: Any) -> Any:
    fields: dict[str, Any] = {"init_sparsity": 0.7, "final_sparsity": 0.7, "num_grads": 40}
    fields |= {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 1.0}
    fields |= {"params": ["re:.*weight"], "exclude": ["1.weight"], "fisher_block_size": 16}
    fields |= {} if kind is FastCAPruningModifier else GLOBAL
    return kind(**{**fields, "damp": "auto", **changes})


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return _trained()


def _bits(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_of_fixed_ones_is_found(kind: type, net: nn.Module) -> None:
    """The oracle draws the batches kept out itself, and judges every decade by itself."""
    before = _bits(net)
    found = _modifier(kind).outcome(net, grad_sampler=_sampler())
    assert _same(before, _bits(net))
    kept, rest = _data()[:32], _data()[32:]
    field = "damp" if kind is FastCAPruningModifier else "relative_damp"
    losses, outcomes = {}, {}
    for decade in range(LOWEST, HIGHEST + 1):
        pruner = _modifier(kind, **{"damp": 1e-7, field: 10.0**decade})
        outcomes[decade] = pruner.outcome(net, grad_sampler=_sampler(rest + kept))
        outcomes[decade].write(net)
        ways = []
        for training in (False, True):
            net[1].train(training)
            net[1].momentum = 0.0
            with torch.no_grad():
                each = [cross_entropy(net(x), y) for x, y in _joined(kept)]
            ways.append(float(torch.stack(each).mean()))
        losses[decade] = min(ways)
        net.load_state_dict(before)
        net[1].eval()
        net[1].momentum = 0.1
    chosen = next(decade for decade in losses if f"chose 1e{decade} of" in found.notes[0])
    tried = [decade for decade in losses if f"1e{decade}: " in found.notes[0]]
    assert losses[chosen] == pytest.approx(min(losses[one] for one in tried), rel=1e-4)
    assert len(tried) >= 5
    for name, (mask, weight) in found.items():
        assert torch.equal(mask, outcomes[chosen][name].mask)
        torch.testing.assert_close(weight, outcomes[chosen][name].weight)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_of_outputs_is_judged_by_probabilities(kind: type, net: nn.Module) -> None:
    """By the share of samples of which draws of the two models differ, at best."""
    data = _data(200)
    net.train()  # norms that are in eval mode by themselves count as frozen
    found = _modifier(kind, gradients_of="outputs").outcome(net, grad_sampler=_sampler(data))
    first, _, again = found.notes[0].partition("; of the best two on 1024: ")
    assert "on 256 samples" in first
    told = [
        {decade: (float(distance), float(loss)) for decade, distance, loss in each}
        for each in (
            re.findall(r"1e(-?\d): (\S+) \(loss (\S+?)\)", part) for part in (first, again)
        )
    ]
    (chosen,) = re.findall(r"chose 1e(-?\d) of", first)
    others = [distance for decade, (distance, _) in told[0].items() if decade not in told[1]]
    assert len(told[1]) == 2
    assert all(told[0][decade][0] <= min(others) for decade in told[1])
    assert told[1][chosen][0] == min(distance for distance, _ in told[1].values())
    pruned, before = copy.deepcopy(net), copy.deepcopy(net).eval()
    found.write(pruned)
    for batches, (distance, loss) in (
        (data[:32], told[0][chosen]),
        (data[:128], told[1][chosen]),
    ):
        ways = []
        for training in (False, True):
            pruned.eval()[1].train(training)
            pruned[1].momentum = 0.0
            with torch.no_grad():
                pairs = [(x, y, pruned(x)) for x, y in _joined(batches)]
                each = [torch.min(before(x).softmax(1), out.softmax(1)) for x, _, out in pairs]
            losses = [float(cross_entropy(out, y)) for _, y, out in pairs]
            ways.append((1 - float(torch.cat(each).sum(1).mean()), sum(losses) / len(losses)))
        assert min(ways) == pytest.approx((distance, loss), rel=2e-3)


def _joined(batches: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    groups = [zip(*batches[i : i + 16], strict=True) for i in range(0, len(batches), 16)]
    return [(torch.cat(inputs), torch.cat(labels)) for inputs, labels in groups]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_reproducible_to_the_bit(kind: type, net: nn.Module) -> None:
    first, second = (_modifier(kind).outcome(net, grad_sampler=_sampler()) for _ in range(2))
    assert first.notes == second.notes
    assert all(torch.equal(first[name].weight, second[name].weight) for name in first)


def test_a_sweep_chooses_for_each_sparsity(net: nn.Module) -> None:
    sweep = dict(_modifier().sweep(net, [0.3, 0.9], grad_sampler=_sampler()))
    alone = _modifier().outcome(net, 0.9, grad_sampler=_sampler())
    assert "at sparsity 0.3" in sweep[0.3].notes[0]
    assert "at sparsity 0.9" in sweep[0.9].notes[0]
    assert all(torch.equal(sweep[0.9][name].weight, alone[name].weight) for name in alone)


def test_it_is_told(net: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    model = _trained()
    pruner = _modifier(num_recomputations=2)
    with caplog.at_level(logging.INFO):
        pruner.initialize(model, float("inf"), grad_sampler=_sampler())
    assert len(pruner.notes) == 2
    assert all(note in caplog.messages for note in pruner.notes)
    zeros = sum(int((model[place].weight == 0).sum()) for place in (0, 3))
    assert zeros == round(0.7 * (SIZE * 16 + 16 * 4))


def test_in_training_the_larger_of_equals_is_taken() -> None:
    model = _trained()
    pruner = _modifier()
    pruner.initialize(model, 0.0, grad_sampler=_sampler())
    pruner.check_mask_update(model, 0.0, 4)
    shot = _modifier().outcome(_trained(), grad_sampler=_sampler())

    def chosen(note: str) -> int:
        return int(note.partition("chose 1e")[2].split()[0])

    assert chosen(pruner.notes[0]) >= chosen(shot.notes[0])


def _nan_without_graph(output: Tensor, labels: Tensor) -> Tensor:
    bad = torch.zeros(()) if torch.is_grad_enabled() else torch.tensor(float("nan"))
    return cross_entropy(output, labels) + bad


class TestWrongInput:
    def test_no_finite_loss(self, net: nn.Module) -> None:
        before = _bits(net)

        def nan_once_pruned(output: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(output, labels) / (net[0].weight != 0).all()

        with pytest.raises(RuntimeError, match=r"no dampening that gives a finite loss.*1e-3"):
            _modifier().outcome(net, grad_sampler=_sampler(loss=nan_once_pruned))
        assert _same(before, _bits(net))

    @pytest.mark.parametrize("norm", [True, False])
    def test_batches_without_a_finite_loss_are_left_out(
        self, norm: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = _data()
        data[0] = data[0][0] * float("nan"), data[0][1]
        found = _modifier(exclude=None).outcome(_trained(norm), grad_sampler=_sampler(data))
        assert "nan" not in found.notes[0]
        assert "inf" not in found.notes[0]
        said = "damp: auto leaves out 1 of {} batches whose loss is not finite"
        assert sum(said.format(2 if norm else 32) in text for text in caplog.messages) == 1

    def test_a_loss_that_is_finite_on_no_batch(self, net: nn.Module) -> None:
        with pytest.raises(
            RuntimeError, match="before anything is pruned the loss is not finite on any"
        ):
            _modifier().outcome(net, grad_sampler=_sampler(loss=_nan_without_graph))

    @pytest.mark.parametrize("data", [_data()[:1], [_data()[0]] * 50])
    def test_too_few_data_to_keep_any_out(self, net: nn.Module, data: Any) -> None:
        with pytest.raises(RuntimeError, match="too few different ones to keep any out"):
            _modifier().outcome(net, grad_sampler=_sampler(data))

    def test_few_data_are_gone_through_again_without_those_kept_out(self, net: nn.Module) -> None:
        seen: list[Tensor] = []

        def loss(output: Tensor, labels: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                seen.append(labels)
            return cross_entropy(output, labels)

        data = _data()[:6]
        _modifier().outcome(net, grad_sampler=_sampler(data, loss))
        assert len(seen) == 40
        kept = [labels for _, labels in data[:3]]
        assert not any(torch.equal(one, other) for one in seen for other in kept)

    def test_those_kept_out_at_the_end_of_a_round_are_left_out_of_the_next(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        batches = [([x], {}, y) for x, y in _data()[:40]]
        data = SamplingData(lambda: batches, "it")
        for _ in range(35):
            data.next_batch()
        kept = KeptOut(data, "it")
        assert kept.draw(lambda _: 10) == ""
        assert kept.batches == batches[35:] + batches[:5]
        drawn = [kept.next_batch() for _ in range(60)]
        assert not any(one is other for one in drawn for other in kept.batches)
        kept.tell_if_seen()
        assert not any("in another order" in text for text in caplog.messages)

    def test_data_that_come_again_in_order_are_no_reason_to_warn(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = SamplingData(lambda: [([x], {}, y) for x, y in _data()[:40]], "it")
        for _ in range(20):
            data.next_batch()
        kept = KeptOut(data, "it")
        kept.draw(lambda _: 10)
        for _ in range(20):  # the next round has not come to them yet
            kept.next_batch()
        kept.tell_if_seen()
        assert not any("in another order" in text for text in caplog.messages)

    def test_shuffled_data_that_come_again_are_warned_of(
        self, net: nn.Module, caplog: pytest.LogCaptureFixture
    ) -> None:
        def shuffled() -> Iterator[tuple[Tensor, Tensor]]:
            inputs, labels = (torch.cat(part) for part in zip(*_data()[:34], strict=True))
            for places in torch.randperm(len(labels)).split(8):
                yield inputs[places], labels[places]

        _modifier(num_grads=60).outcome(net, grad_sampler=_sampler(shuffled))
        assert sum("gone through again in another order" in text for text in caplog.messages) == 1

    def test_two_dampenings(self) -> None:
        with pytest.raises(ValueError, match="damp: auto and relative_damp"):
            _modifier(relative_damp=1e-3).initialize(_trained(), grad_sampler=_sampler())

    @pytest.mark.parametrize("value", ["automatic", "0", -1.0, "auto "])
    def test_other_texts(self, value: Any) -> None:
        if value == "auto ":
            assert _modifier(damp=value).damp == "auto"
            return
        with pytest.raises(ValueError, match=r"damp.*found"):
            _modifier(damp=value)

    def test_gradients_of_the_training(self, net: nn.Module) -> None:
        pruner = _modifier(MFACPruningModifier, use_gradient_buffering=True, num_grads=1)
        model = _trained()
        pruner.initialize(model, 0.0)
        cross_entropy(model(_data()[0][0]), _data()[0][1]).backward()
        with pytest.raises(RuntimeError, match="damp: auto needs a grad_sampler"):
            pruner.check_mask_update(model, 0.0, 4)

    def test_gradients_that_are_all_zero(self) -> None:
        pruner = _modifier(damp=1e-7, relative_damp=1e-2)
        with pytest.raises(ValueError, match="all gradients are zero"):
            pruner.outcome(_trained(), grad_sampler=_sampler(loss=lambda out, _: 0.0 * out.sum()))


def test_a_relative_dampening_is_the_mean_diagonal_times_it() -> None:
    model = _trained(norm=False)
    squares = count = 0.0
    for inputs, labels in _data()[:40]:
        model.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        grads = [model[place].weight.grad for place in (0, 2)]
        squares += sum(float(grad.double().square().sum()) for grad in grads)
        count += sum(grad.numel() for grad in grads)
    model.zero_grad()
    for kind in KINDS[:3]:
        both = [
            _modifier(kind, exclude=None, **how).outcome(model, grad_sampler=_sampler())
            for how in ({"damp": 1e-3 * squares / count}, {"damp": 1e-7, "relative_damp": 1e-3})
        ]
        for name, (mask, weight) in both[0].items():
            assert torch.equal(mask, both[1][name].mask)
            torch.testing.assert_close(weight, both[1][name].weight, rtol=1e-3, atol=1e-5)


def test_memory_in_groups_gives_the_same_kind_of_choice(net: nn.Module) -> None:
    """Where the sums do not fit at a time, every trial samples anew."""
    found = _modifier(fisher_memory="20kB").outcome(net, grad_sampler=_sampler())
    assert "chose 1e" in found.notes[0]
    assert sum(int((~mask).sum()) for mask, _ in found.values()) == round(0.7 * 192)


def test_too_few_gradients_for_a_block_are_told(
    net: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    for count in (15, 16):
        _modifier(num_grads=count, damp=1e-3).initialize(net, grad_sampler=_sampler())
    text = "CAPruningModifier: 15 gradients cannot tell apart the 16 weights of a block"
    assert [text in message for message in caplog.messages].count(True) == 1


def test_batches_are_joined_only_where_they_fit() -> None:
    pairs = [([x], {}, y) for x, y in _data()[:40]]
    assert [len(labels) for _, _, labels in joined(pairs)] == [128, 128, 64]
    other = [([x, "text"], {}, y) for x, y in _data()[:4]]
    assert joined(other) == other


@pytest.mark.parametrize(
    ("gradients", "samples", "each", "batches"),
    [(512, 16, False, 16), (512, 512, False, 8), (4096, 16, True, 16), (8, 1, False, 256)],
)
def test_how_much_is_kept_out(gradients: int, samples: int, each: bool, batches: int) -> None:
    assert wanted_batches(gradients, samples, each) == batches


def test_it_needs_a_sampler(net: nn.Module) -> None:
    pruner = _modifier(damp=1e-3)
    pruner.initialize(net, grad_sampler=_sampler())
    pruner._sampler = None
    with pytest.raises(RuntimeError, match="needs a grad_sampler"):
        best_of_decades("it", pruner.problem(net), [0.5], 4, lambda *_: [])
