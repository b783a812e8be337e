"""Running statistics measured anew after pruning, and kept only where that does good."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import sparseml
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import GlobalMagnitudePruningModifier
from sparseml.pytorch.sparsification.statistics import (
    StatisticsTuner,
    Unfit,
    averaged,
    measure_statistics,
    statistics_holders,
    tunable_norms,
    write_statistics,
)

CLASSES = 4
Data = list[tuple[Tensor, Tensor]]


def _data(images: int = 512, size: int = 8, batch: int = 32) -> Data:
    """Images of a colour and a brightness a class, with noise."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, CLASSES, (images,), generator=generator)
    colours = torch.eye(CLASSES)[:, :3, None, None]
    noise = torch.randn(images, 3, size, size, generator=generator)
    inputs = colours[labels] + 0.5 * noise
    return list(zip(inputs.split(batch), labels.split(batch), strict=True))


def _of_one_class() -> Data:
    """Images that the network knows, but all of one class, so that their statistics are others."""
    inputs, labels = (torch.cat(parts) for parts in zip(*_data(), strict=True))
    chosen = labels == 0
    return list(zip(inputs[chosen].split(16), labels[chosen].split(16), strict=True))


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, CLASSES),
    )  # fmt: skip


def _trained(model: nn.Module, data: Data, epochs: int = 3) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(epochs):
        for inputs, labels in data:
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A network of two convolutions that was trained."""
    return _trained(_net(), _data())


@pytest.fixture
def model(trained: nn.Module) -> nn.Module:
    """A copy of it."""
    return copy.deepcopy(trained)


def _triples(data: Data) -> list[Any]:
    return [([inputs], {}, labels) for inputs, labels in data]


def _tuner(data: Data, batches: int | None = None) -> StatisticsTuner:
    return StatisticsTuner(lambda: _triples(data), cross_entropy, batches)


def _prune(model: nn.Module, sparsity: float = 0.8) -> None:
    params = ["re:.*weight"]
    modifier = GlobalMagnitudePruningModifier(
        params=params, init_sparsity=sparsity, final_sparsity=sparsity,
        start_epoch=0.0, end_epoch=1.0, update_frequency=1.0,
    )  # fmt: skip
    ScheduledModifierManager([modifier]).apply(model)


def _statistics(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for name, buffer in model.named_buffers() if "running" in name]


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(4), (6, 4)),
        (nn.BatchNorm1d(4), (6, 4, 5)),
        (nn.BatchNorm2d(4, affine=False), (6, 4, 3, 2)),
        (nn.BatchNorm3d(4, momentum=None), (6, 4, 2, 3, 2)),
        (nn.SyncBatchNorm(4), (6, 4, 3, 2)),
        (timm.layers.BatchNormAct2d(4), (6, 4, 3, 2)),
        (timm.layers.SyncBatchNormAct(4), (6, 4, 3, 2)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_statistics_are_those_of_cumulative_averages(norm: nn.Module, shape: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(shape, generator=generator) * 2 + 1 for _ in range(3)]
    plain = type(norm).__mro__[1 if isinstance(norm, nn.SyncBatchNorm) else 0]
    reference = copy.deepcopy(norm)
    if not isinstance(norm, nn.SyncBatchNorm):  # which measures on GPUs only
        reference.momentum = None
        outputs = [reference.train()(batch) for batch in batches]
    else:
        assert plain is not None
        reference = nn.BatchNorm2d(4, momentum=None)
        outputs = []
        for batch in batches:
            reference(batch)
    seen: list[Tensor] = []
    norm.register_forward_hook(lambda _, __, output: seen.append(output))
    norm.eval()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    momentum = norm.momentum
    measured = measure_statistics(norm, [norm], [([batch], {}, None) for batch in batches])
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert norm.momentum == momentum and not norm.training
    for found, expected in zip(seen, outputs, strict=False):
        torch.testing.assert_close(found, expected)
    write_statistics([norm], averaged(measured, [norm]))
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)
    assert int(norm.num_batches_tracked) == 0


def test_shared_norms_unused_ones_and_single_values() -> None:
    norm, unused = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    unused.running_mean.fill_(5.0)
    model = nn.Sequential(norm, nn.Linear(2, 2), norm)
    inputs = torch.randn(8, 2)
    measured = measure_statistics(model, [norm, unused], [([inputs], {}, None)])
    (twice, kept) = averaged(measured, [norm, unused])
    model.train()
    seen = [inputs, model[1](model[0](inputs))]
    expected = torch.stack([one.mean(0) for one in seen]).mean(0)
    torch.testing.assert_close(twice["running_mean"].float(), expected)
    assert kept["running_mean"].tolist() == [5.0, 5.0]
    with pytest.raises(ValueError, match="one value per channel"):
        measure_statistics(norm, [norm], [([inputs[:1]], {}, None)])


def test_pruned_networks_gain_and_everything_else_stays(model: nn.Module) -> None:
    data, dense = _data(), copy.deepcopy(model)
    tuner = _tuner(data)
    checked = tuner.check(model)
    assert not checked.kept and abs(checked.after - checked.before) < 0.05
    assert _equal(_statistics(model), _statistics(dense))
    _prune(model)
    pruned = copy.deepcopy(model.train())
    rng = torch.get_rng_state()
    judged = tuner.tune(model)
    assert judged.kept and judged.after < judged.before
    assert "2 norms measured anew: loss" in judged.told and judged.told.endswith(", kept")
    assert torch.equal(torch.get_rng_state(), rng) and model.training and model[1].training
    assert model[1].momentum == 0.1
    differ = {
        name
        for name, value in pruned.state_dict().items()
        if not torch.equal(value, model.state_dict()[name])
    }
    assert differ == {f"{layer}.running_{what}" for layer in (1, 4) for what in ("mean", "var")}
    new = _statistics(model)
    with judged.other():
        assert _equal(_statistics(model), _statistics(dense))
    assert _equal(_statistics(model), new)
    tuner.tune(pruned)
    assert _equal(_statistics(pruned), new), "bit by bit"


def test_inputs_that_the_model_was_not_trained_on_are_noticed(model: nn.Module) -> None:
    before = _statistics(model)
    with pytest.raises(Unfit, match=r"from 0\.\d+ to .* do not look like those"):
        _tuner(_of_one_class()).check(model)
    assert _equal(_statistics(model), before)


def test_a_dense_model_that_gains_too_much_was_trained_on_others(model: nn.Module) -> None:
    dim = [(0.2 * inputs, labels) for inputs, labels in _data()]
    with pytest.raises(Unfit, match="which ought to stay: these inputs do not look like those"):
        _tuner(dim).check(model)
    judged = _tuner(dim, batches=8).check(model)  # who asks for it knows
    assert judged.after < 0.75 * judged.before


def test_statistics_that_do_not_lower_the_loss_are_not_kept(model: nn.Module) -> None:
    before = _statistics(model)
    bad = [(inputs if number % 4 == 1 else -inputs, labels) for number, (inputs, labels) in
           enumerate(_data())]  # fmt: skip
    judged = _tuner(bad).tune(model)
    assert not judged.kept and judged.after > judged.before and judged.told.endswith("not kept")
    assert _equal(_statistics(model), before)


def test_what_is_held_out_is_not_measured_on() -> None:
    drawn: list[int] = []

    def stream() -> Iterator[Any]:
        for number in range(1000):
            drawn.append(number)
            yield [torch.full((64, 2), float(number)) + torch.randn(64, 2)], {}, torch.zeros(64)

    norm = nn.BatchNorm1d(2)
    tuner = StatisticsTuner(stream, lambda output, target: output.mean() * 0 + target.mean())
    norms = tuner.tune(norm)
    numbers = [number for number in range(33) if number % 4 != 1]  # 25 of 64: 1,600
    expected = sum(numbers) / len(numbers)
    assert len(numbers) == 25 and drawn[-1] == 33
    assert norms.new[0]["running_mean"].mean().item() == pytest.approx(expected, abs=0.1)
    drawn.clear()
    StatisticsTuner(stream, lambda output, target: target.mean(), 2).tune(norm)
    assert drawn == [0, 1, 2, 3]


def test_nothing_to_measure_or_to_judge_by(model: nn.Module) -> None:
    data = _data()
    with pytest.raises(Unfit, match="too few batches to measure on some and hold out others"):
        _tuner(data[:1]).check(model)
    with pytest.raises(Unfit, match="too few"):
        _tuner([]).check(model)
    with pytest.raises(Unfit, match="have no labels"):
        StatisticsTuner(lambda: [([x], {}, None) for x, _ in data], cross_entropy).check(model)
    with pytest.raises(Unfit, match="loss of the dense model on held-out batches is nan"):
        StatisticsTuner(
            lambda: _triples(data), lambda output, _: output.sum() * float("nan")
        ).check(model)
    with pytest.raises(Unfit, match="no batch norms with running statistics"):
        _tuner(data).check(nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES), nn.LayerNorm(4)))
    with pytest.raises(Unfit, match="one value per channel"):
        _tuner([(x[:1].mean((2, 3), keepdim=True), y[:1]) for x, y in data]).check(model)


def test_a_model_whose_loss_was_not_finite_is_mended(model: nn.Module) -> None:
    write_statistics(tunable_norms(model), [
        {"running_mean": torch.full((16,), float("nan")), "running_var": torch.ones(16)}
        for _ in range(2)
    ])  # fmt: skip
    judged = _tuner(_data()).tune(model)
    assert judged.kept and "loss nan to 0." in judged.told


def test_frozen_norms_are_left_alone() -> None:
    net = torchvision.models.resnet18(
        norm_layer=torchvision.ops.FrozenBatchNorm2d, num_classes=CLASSES
    )
    assert len(statistics_holders(net)) == 20 and not tunable_norms(net)
    with pytest.raises(Unfit, match="all 20 norms with running statistics are frozen"):
        _tuner(_data()).check(net)
    net = _net()
    net[1].eval()  # within a model that is in training mode
    assert tunable_norms(net) == [net[4]]
    net.eval()
    net[4].track_running_stats = False
    assert tunable_norms(net) == [net[1]]
    net[1].requires_grad_(False)
    assert not tunable_norms(net)
    net.requires_grad_(False)
    assert tunable_norms(net) == [net[1]], "nothing is trained, so nothing is frozen"
    assert not tunable_norms(nn.InstanceNorm2d(3, track_running_stats=True))


@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.resnet18(num_classes=CLASSES),
        lambda: torchvision.models.mobilenet_v3_small(num_classes=CLASSES),
        lambda: timm.create_model("efficientnet_lite0", num_classes=CLASSES, pretrained=False),
        lambda: timm.create_model("test_byobnet", num_classes=CLASSES, pretrained=False),
    ],
    ids=["resnet18", "mobilenet_v3", "efficientnet_lite0", "byobnet"],
)
def test_networks_of_others_get_the_statistics_of_training(build: Any) -> None:
    torch.manual_seed(0)
    net = build().double().eval()
    norms, images = tunable_norms(net), torch.randn(4, 3, 32, 32).double()
    assert len(norms) == len(statistics_holders(net)) > 2
    reference = copy.deepcopy(net)
    for module in reference.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train().momentum = None
    with torch.no_grad():
        for some in images.split(2):
            reference(some)
    batches = [([some], {}, None) for some in images.split(2)]
    write_statistics(norms, averaged(measure_statistics(net, norms, batches), norms))
    for found, expected in zip(_statistics(net), _statistics(reference), strict=True):
        torch.testing.assert_close(found, expected)


RECIPE = """
modifiers:
  - !GlobalMagnitudePruningModifier {params: ['re:.*weight'], init_sparsity: 0.8,
     final_sparsity: 0.8, start_epoch: 0, end_epoch: 1, update_frequency: 1}
"""


def _applied(model: nn.Module, **kwargs: Any) -> Any:
    manager = ScheduledModifierManager.from_yaml(RECIPE)
    manager.apply(model, **kwargs)
    return manager


def test_apply_tunes_by_its_data_unless_it_is_told_not_to(
    model: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data, old = _data(), _statistics(model)
    asked: list[int] = []

    def build(**kwargs: Any) -> Any:
        asked.append(1)
        return iter(_triples(data))

    sampler = {"data_loader_builder": build, "loss_fn": cross_entropy}
    plain, off, own = (copy.deepcopy(model) for _ in range(3))
    assert _applied(plain).norms is None
    assert _applied(off, grad_sampler=sampler, bn_retune=0).norms is None and not asked
    assert _applied(copy.deepcopy(model), grad_sampler=sampler, finalize=False).norms is None
    assert not asked, "its modifiers go on"
    assert _equal(_statistics(plain), old) and _equal(_statistics(off), old)
    judged = _applied(model, grad_sampler=sampler).norms
    assert judged.kept and len(asked) == 1 and not _equal(_statistics(model), old)
    assert "batch norms: 2 norms measured anew: loss" in caplog.text
    assert _applied(own, bn_data=data, bn_retune=4).norms.kept
    assert not _equal(_statistics(own), _statistics(model))
    with pytest.raises(ValueError, match="bn_retune must be a number of batches, 0 or more"):
        _applied(off, grad_sampler=sampler, bn_retune=-1)


def test_apply_says_in_one_line_why_it_leaves_statistics_alone(
    model: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    data, old = _of_one_class(), _statistics(model)
    assert _applied(model, bn_data=data).norms is None
    assert _equal(_statistics(model), old)
    (told,) = (one.message for one in caplog.records if "batch norms" in one.message)
    assert told.startswith("batch norms keep the statistics of the dense model: measured anew")
    assert "do not look like those that it was trained on" in told
    caplog.clear()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    sampler = {"data_loader_builder": lambda: _triples(data), "loss_fn": cross_entropy}
    _applied(copy.deepcopy(flat), grad_sampler=sampler)
    assert "batch norms" not in caplog.text, "nobody asked"
    _applied(flat, bn_retune=3)
    assert [one.message for one in caplog.records if "batch norms" in one.message] == [
        "batch norms keep the statistics of the dense model: the model has no batch norms with "
        "running statistics"
    ]
    caplog.clear()
    _applied(model, bn_retune=3)
    assert "there are no data: give bn_data, a loader as in training" in caplog.text


WORKER = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import mse_loss
from sparseml.pytorch.sparsification.statistics import StatisticsTuner

rank, shares = int(sys.argv[2]), torch.load(sys.argv[1] + "/shares.pt")
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/group", rank=rank, world_size=2)
torch.manual_seed(0)
norm = nn.SyncBatchNorm(3)
net = nn.Sequential(nn.Conv2d(3, 3, 1), norm, nn.ReLU())
judged = StatisticsTuner(lambda: shares[rank], mse_loss).tune(net)
told = (judged.before, judged.after, judged.kept, judged.told)
torch.save((net.state_dict(), told), f"{sys.argv[1]}/{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 16, 3, 4, 4, generator=generator)
    batches = [([some], {}, some.relu()) for some in inputs]
    # of four batches each process holds out the second
    torch.save([batches[:4], batches[4:]], tmp_path / "shares.pt")
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    running = [subprocess.Popen([*command, str(rank)]) for rank in (0, 1)]
    assert [one.wait(120) for one in running] == [0, 0]
    (first, told), (second, also) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert told == also and all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
    # alone, the second and the sixth are held out, too
    judged = StatisticsTuner(lambda: batches, mse_loss).tune(net)
    assert told[:2] == pytest.approx((judged.before, judged.after)) and told[2] == judged.kept
    for name, value in net.state_dict().items():
        torch.testing.assert_close(first[name], value)


def test_one_call_tunes_and_tells(model: nn.Module) -> None:
    data, plain = _data(), copy.deepcopy(model)
    done = sparseml.prune(model, "magnitude", 0.8, data=data)
    assert done.norms is not None and done.norms.kept and done.norms.told in str(done)
    left = sparseml.prune(plain, "magnitude", 0.8, data=data, bn_retune=0)
    assert left.norms is None and left.sparsities == done.sparsities
    with pytest.raises(ValueError, match="batches must have labels"):
        sparseml.prune(plain, "cap", 0.8, data=[inputs for inputs, _ in data])
