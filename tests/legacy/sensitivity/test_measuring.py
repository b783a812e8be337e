"""How sensitive a model is to pruning and to the learning rate."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import (
    default_exponential_check_lrs,
    lr_loss_sensitivity,
    model_prunability_magnitude,
    pruning_loss_sens_magnitude,
    pruning_loss_sens_one_shot,
)
from sparseml.pytorch.utils import CrossEntropyLossWrapper, ModuleRunFuncs, TopKAccuracy


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(5, 16, 6, generator=generator)
    return [(batch, (batch[:, 0] > 0).long() + (batch[:, 1] > 0).long()) for batch in inputs]


@pytest.fixture
def loss():
    return CrossEntropyLossWrapper(extras={"top1": TopKAccuracy(1)})


def unchanged(net, before):
    return all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class TestMagnitude:
    def test_mean_of_the_weights_between_two_levels(self):
        net = nn.Sequential(nn.Linear(16, 1), nn.Linear(1, 2))
        signs = torch.tensor([1.0, -1.0] * 8)
        net[0].weight.data = (torch.arange(16, 0, -1) / 10 * signs).reshape(1, 16)
        analysis = pruning_loss_sens_magnitude(net, [0.0, 0.25, 0.5, 0.9])
        assert [(r.name, r.index) for r in analysis.results] == [("0.weight", 0), ("1.weight", 1)]
        result = analysis.get_result("0.weight")
        assert result.averages == pytest.approx({0.0: 0.0, 0.25: 0.25, 0.5: 0.65, 0.9: 1.15})
        assert result.baseline_measurement_key == 0.0
        assert result.sparse_comparison() == pytest.approx(1.15)

    @pytest.mark.parametrize(
        ("levels", "values"),
        [
            ([1e-10, 0.5], [0.0, 1.5]),  # next to nothing counts as dense
            ([0.5, 0.5, 0.6, 0.75], [1.5, 3.0, 3.0, 4.0]),  # none between: the next one
            ([1.0, 0.25], [2.0, 2.0]),  # levels one after the other, never all weights
        ],
    )
    def test_levels_in_order(self, levels, values):
        net = nn.Linear(4, 1)
        net.weight.data = torch.tensor([[4.0, 1.0, -2.0, 3.0]])
        (result,) = pruning_loss_sens_magnitude(net, levels).results
        measured = [value for values in result.sparse_measurements.values() for value in values]
        assert measured == pytest.approx(values)
        assert result.has_baseline == (levels[0] < 1e-9)

    def test_default_levels(self, net):
        results = pruning_loss_sens_magnitude(net).results
        assert [len(result.averages) for result in results] == [100, 100]
        assert all(result.sparse_integral > 0 for result in results)

    def test_shared_weights_count_once(self, net):
        net[3].weight = net[0].weight
        assert len(pruning_loss_sens_magnitude(net).results) == 1

    def test_prunability_is_the_mean_magnitude(self):
        net = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 2))
        net[0].weight.data = torch.tensor([[1.0, -2.0, 0.5, 1.5]])
        net[1].weight.data = torch.tensor([[0.3], [-0.8]])
        value = model_prunability_magnitude(net)
        assert isinstance(value, float) and value == pytest.approx(6.1 / 6)  # 1.0167

    @pytest.mark.parametrize("measure", [pruning_loss_sens_magnitude, model_prunability_magnitude])
    def test_nothing_to_prune(self, measure):
        with pytest.raises(ValueError, match="ReLU has no prunable layers"):
            measure(nn.ReLU())

    def test_no_fraction(self, net):
        with pytest.raises(ValueError, match="between 0 and 1"):
            pruning_loss_sens_magnitude(net, [90.0])


class TestOneShot:
    def measure(self, net, data, loss, **kwargs):
        kwargs = {"sparsity_levels": (0.0, 0.5, 1.0), "show_progress": False, **kwargs}
        return pruning_loss_sens_one_shot(net, data, loss, "cpu", 3, **kwargs)

    def test_measures_each_layer_alone_and_leaves_no_trace(self, net, data, loss):
        net.train()
        before = copy.deepcopy(net.state_dict())
        analysis = self.measure(net, iter(data), loss)
        assert unchanged(net, before) and net.training
        net.eval()
        dense = [loss(batch, net(batch[0]))["__loss__"].item() for batch in data[:3]]
        for result in analysis.results:
            assert result.dict()["sparse_measurements"][0] == [0.0, pytest.approx(dense)]
            assert result.baseline_average == pytest.approx(sum(dense) / 3)
        net[3].weight.data.zero_()
        empty = [loss(batch, net(batch[0]))["__loss__"].item() for batch in data[:3]]
        measured = analysis.get_result("3.weight").dict()["sparse_measurements"]
        assert measured[2] == [1.0, pytest.approx(empty)]

    def test_goes_through_short_data_again(self, net, data, loss):
        analysis = self.measure(net, data[:2], loss)
        for result in analysis.results:
            for values in result.sparse_measurements.values():
                assert len(values) == 3 and values[0] == values[2] != values[1]

    def test_other_values_of_the_loss(self, net, data, loss):
        analysis = self.measure(net, data, loss, loss_key="top1")
        assert 0.0 <= analysis.results[0].baseline_average <= 100.0
        with pytest.raises(KeyError, match="top5"):
            self.measure(net, data, loss, loss_key="top5")

    def test_run_funcs(self, net, data, loss):
        called = []
        funcs = ModuleRunFuncs(model_forward=lambda batch, m: called.append(1) or m(batch[0]))
        self.measure(net, data, loss, tester_run_funcs=funcs)
        assert len(called) == 3 * (1 + 2 * 2)  # dense once, two layers at two sparsities

    def test_weights_come_back_after_an_error(self, net, data):
        before = copy.deepcopy(net.state_dict())

        def fail(pred, batch):
            if (net[0].weight == 0).any():
                raise ZeroDivisionError
            return pred.sum()

        with pytest.raises(ZeroDivisionError):
            self.measure(net, data, fail)
        assert unchanged(net, before)

    @pytest.mark.parametrize(
        "kwargs,message",
        [({"sparsity_levels": [1.5]}, "between 0 and 1"), ({"data": []}, "no batches")],
    )
    def test_bad_input(self, net, data, loss, kwargs, message):
        with pytest.raises(ValueError, match=message):
            self.measure(net, kwargs.pop("data", data), loss, **kwargs)


class TestLearningRates:
    def test_default_rates(self):
        rates = default_exponential_check_lrs()
        assert rates[0] == 1e-6 and rates[-1] == 0.5 and len(rates) == 139
        assert default_exponential_check_lrs(0.1, 0.4, 2.0) == (0.1, 0.2, 0.4)

    @pytest.mark.parametrize("args", [(0.0, 1.0, 2.0), (1.0, 0.5, 2.0), (0.1, 0.2, 1.0)])
    def test_rates_must_rise(self, args):
        with pytest.raises(ValueError, match="rates must rise"):
            default_exponential_check_lrs(*args)

    def test_every_rate_starts_from_the_same_place(self, net, data, loss):
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
        loss(data[0], net.eval()(data[0][0]))["__loss__"].backward()
        optimizer.step()
        before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
        analysis = lr_loss_sensitivity(
            net, iter(data), loss, optimizer, "cpu", 4, [1e-9, 0.05, 1e-9], show_progress=False
        )
        assert unchanged(net, before[0]) and not net.training
        assert str(optimizer.state_dict()) == str(before[1])
        slow, again, fast = analysis.results
        assert [result["lr"] for result in analysis.results] == [1e-9, 1e-9, 0.05]  # ascending
        assert slow == again
        assert slow["loss_measurements"][0] == fast["loss_measurements"][0]
        assert fast["loss_measurements"][3] < slow["loss_measurements"][3]

    def test_goes_through_short_data_again(self, net, data, loss):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        analysis = lr_loss_sensitivity(
            net, iter(data[:2]), loss, optimizer, "cpu", 5, [0.2, 0.1], show_progress=False
        )
        assert [(r["lr"], len(r["loss_measurements"])) for r in analysis.results] == [
            (0.1, 5), (0.2, 5),
        ]  # fmt: skip

    def test_run_funcs_and_no_batches(self, net, data, loss):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        called = []
        funcs = ModuleRunFuncs(model_forward=lambda batch, m: called.append(1) or m(batch[0]))
        lr_loss_sensitivity(
            net, data, loss, optimizer, "cpu", 0, [0.1], trainer_run_funcs=funcs,
            show_progress=False,
        )  # fmt: skip
        assert len(called) == len(data)
        with pytest.raises(ValueError, match="no batches"):
            lr_loss_sensitivity(net, [], loss, optimizer, "cpu", 1, [0.1])
