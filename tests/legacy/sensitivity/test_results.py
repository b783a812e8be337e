"""Holding, saving, printing and plotting measurements of sensitivity."""

from __future__ import annotations

import json
import sys

import pytest

from sparseml.optim import (
    LRLossSensitivityAnalysis,
    PruningLossSensitivityAnalysis,
    PruningPerfSensitivityAnalysis,
    PruningSensitivityResult,
    default_pruning_sparsities_loss,
    default_pruning_sparsities_perf,
)


@pytest.fixture
def result():
    result = PruningSensitivityResult(None, "fc.weight", 0)
    for sparsity, value in [(0.95, 4.0), (0.0, 1.0), (0.5, 2.0), (0.5, 4.0)]:
        result.add_measurement(sparsity, value, baseline=sparsity == 0.0)
    return result


def fill(analysis):
    for index, name in reversed(list(enumerate(["fc1", "fc2"]))):
        for sparsity in (0.0, 0.5):
            value = sparsity + 1 + index
            analysis.add_result(f"id{index}", name, index, sparsity, value, sparsity == 0.0)
    return analysis


@pytest.fixture
def loss():
    return fill(PruningLossSensitivityAnalysis())


@pytest.fixture
def perf():
    analysis = fill(PruningPerfSensitivityAnalysis(num_cores=4, batch_size=16))
    analysis.add_model_result(0.0, 8.0, True)
    analysis.add_model_result(0.9, 2.0, False)
    return analysis


@pytest.fixture(params=["loss", "perf"])
def pruning(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def rates():
    analysis = LRLossSensitivityAnalysis()
    analysis.add_result(0.1, [4.0, 2.0])
    analysis.add_result(0.01, [5.0])
    return analysis


def test_default_sparsities():
    extended = default_pruning_sparsities_loss(True)
    assert len(extended) == 100 and extended[0] == 0.0 and extended[-1] == 0.99
    coarse = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)
    assert default_pruning_sparsities_loss(extended=False) == coarse
    with pytest.raises(TypeError):
        default_pruning_sparsities_loss()
    speed = (0.0, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99)
    assert default_pruning_sparsities_perf() == speed


class TestResult:
    def test_averages_in_the_order_added(self, result):
        assert list(result.averages.items()) == [(0.95, 4.0), (0.0, 1.0), (0.5, 3.0)]
        assert list(result.sparse_measurements.items()) == [
            (0.95, [4.0]), (0.0, [1.0]), (0.5, [2.0, 4.0]),
        ]  # fmt: skip
        assert result.has_baseline and result.baseline_average == 1.0
        assert (result.baseline_measurement_index, result.baseline_measurement_key) == (1, 0.0)

    def test_read_only(self, result):
        for name in ("id_", "name", "index", "baseline_measurement_index", "sparse_measurements"):
            with pytest.raises(AttributeError):
                setattr(result, name, 1)

    def test_only_the_first_value_of_a_sparsity_makes_it_the_baseline(self, result):
        result.add_measurement(0.5, 3.0, baseline=True)
        assert result.baseline_measurement_key == 0.0
        result.add_measurement(0.1, 3.0, baseline=True)
        assert (result.baseline_measurement_index, result.baseline_average) == (3, 3.0)

    def test_average_is_over_sparsities_too(self, result):
        assert result.sparse_average == pytest.approx((0.0 + 1.0 + 0.5 + 3.0 + 0.95 + 4.0) / 6)

    def test_integral(self, result):
        assert result.sparse_integral == pytest.approx(0.5 * 2.0 + 0.45 * 3.5)

    def test_comparison_by_index(self, result):
        assert result.sparse_comparison() == result.sparse_comparison(-1) == 3.0  # nearest to 0.9
        assert [result.sparse_comparison(index) for index in range(3)] == [3.0, 0.0, 2.0]

    def test_without_a_baseline(self):
        result = PruningSensitivityResult(None, "fc", 0)
        assert result.sparse_comparison() == 0.0 and result.dict()["sparse_average"] == 0.0
        result.add_measurement(0.5, 1.0, baseline=False)
        assert result.sparse_comparison() == 0.0
        result.add_measurement(0.8, 5.0, baseline=False)
        assert result.sparse_comparison() == 4.0  # the first entry serves
        assert not result.has_baseline and result.dict()["baseline_average"] is None
        with pytest.raises(ValueError, match="no baseline was measured for fc"):
            result.baseline_average  # noqa: B018

    def test_positional_arguments(self):
        result = PruningSensitivityResult("id", "fc", 2, 1, 0.0, {0.5: [3.0], 0.0: [1.0, 2.0]})
        assert (result.id_, result.name, result.index) == ("id", "fc", 2)
        assert result.baseline_average == 1.5 and result.sparse_comparison() == 1.5

    def test_plain_data(self, result):
        assert result.dict() == {
            "id": None,
            "name": "fc.weight",
            "index": 0,
            "baseline_measurement_index": 1,
            "has_baseline": True,
            "baseline_measurement_key": 0.0,
            "sparse_measurements": [[0.95, [4.0]], [0.0, [1.0]], [0.5, [2.0, 4.0]]],
            "averages": {0.95: 4.0, 0.0: 1.0, 0.5: 3.0},
            "baseline_average": 1.0,
            "sparse_average": result.sparse_average,
            "sparse_integral": result.sparse_integral,
            "sparse_comparison": 3.0,
        }
        again = PruningSensitivityResult.from_dict(dictionary=result.dict())
        assert again.dict() == result.dict()
        assert "fc.weight" in repr(result)

    def test_what_was_written_before_is_read(self):
        old = {"id": None, "name": "fc", "index": 1, "baseline": 0.0,
               "measurements": [[0.0, [1.0]], [0.9, [2.0]]]}  # fmt: skip
        result = PruningSensitivityResult.from_dict(old)
        assert (result.baseline_measurement_index, result.sparse_comparison()) == (0, 1.0)


class TestPruningAnalysis:
    def test_results_in_the_order_added(self, pruning):
        assert [result.name for result in pruning.results] == ["fc2", "fc1"]
        assert pruning.get_result("fc2") is pruning.get_result("id1") is pruning.results[0]

    def test_found_by_id_or_else_by_name(self, pruning):
        pruning.add_result("id1", "renamed", 7, 0.9, 3.0, False)
        pruning.add_result(None, "fc1", 7, 0.9, 3.0, False)
        assert [list(result.averages) for result in pruning.results] == [[0.0, 0.5, 0.9]] * 2
        assert [result.index for result in pruning.results] == [1, 0]

    @pytest.mark.parametrize("kind", [ValueError, KeyError])
    def test_missing_result(self, pruning, kind):
        with pytest.raises(kind, match=r"^no result of 'fc_1'; did you mean 'fc1'"):
            pruning.get_result("fc_1")

    def test_files(self, pruning, tmp_path):
        pruning.save_json(str(tmp_path / "a" / "sensitivity"))
        again = type(pruning).load_json(str(tmp_path / "a" / "sensitivity.json"))
        assert type(again) is type(pruning) and again.dict() == pruning.dict()
        pruning.save_json(tmp_path / "b.json")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.json"]

    def test_prints(self, loss, capsys):
        loss.add_result(None, "fc3", 2, 0.5, 1.0, False)
        loss.print_res()
        assert capsys.readouterr().out.splitlines() == [
            "layer  integral  at 0.9 against dense",
            "fc2       1.125                   0.5",
            "fc1       0.625                   0.5",
            "fc3           1                     -",
        ]

    def test_model_is_the_sum_of_the_layers(self, loss):
        model = loss.results_model
        assert (model.id_, model.name, model.index) == ("__model__", "__model__", -1)
        assert model.averages == {0.0: 3.0, 0.5: 4.0} and model.baseline_average == 3.0
        assert list(loss.dict()) == ["results"]

    def test_speed_of_the_model(self, perf):
        model = perf.results_model
        assert (model.id_, model.name, model.index) == ("__model__", "model", -1)
        assert model.sparse_comparison() == -6.0
        values = perf.dict()
        assert (values["num_cores"], values["batch_size"]) == (perf.num_cores, perf.batch_size)
        assert (perf.num_cores, perf.batch_size) == (4, 16)
        assert values["results_model"] == model.dict() and len(values["results"]) == 2
        with pytest.raises(TypeError):
            PruningPerfSensitivityAnalysis()

    def test_files_of_sparseml_1(self, tmp_path):
        layer = {
            "id": "12", "name": "fc", "index": 0, "baseline_measurement_index": 0,
            "has_baseline": True, "baseline_measurement_key": 0.0,
            "sparse_measurements": [[0.0, [1.0, 3.0]], [0.9, [6.0]]],
            "averages": {"0.0": 2.0, "0.9": 6.0}, "baseline_average": 2.0,
            "sparse_average": 2.225, "sparse_integral": 3.6, "sparse_comparison": 4.0,
        }  # fmt: skip
        path = tmp_path / "loss.json"
        path.write_text(json.dumps({"results": [layer]}))
        loss = PruningLossSensitivityAnalysis.load_json(str(path))
        (again,) = json.loads(json.dumps(loss.dict()))["results"]
        assert again.pop("sparse_average") == pytest.approx(2.225)
        assert again == {name: layer[name] for name in layer if name != "sparse_average"}
        model = {**layer, "id": "__model__", "name": "model", "index": -1}
        speed = {"num_cores": 2, "batch_size": 8, "results": [layer], "results_model": model}
        path.write_text(json.dumps(speed))
        perf = PruningPerfSensitivityAnalysis.load_json(str(path))
        assert (perf.num_cores, perf.batch_size) == (2, 8)
        assert perf.results_model.sparse_comparison() == perf.get_result("12").sparse_comparison()
        rates = [{"lr": 0.1, "loss_measurements": [1.0, 2.0], "loss_avg": 1.5}]
        path.write_text(json.dumps({"results": rates}))
        assert LRLossSensitivityAnalysis.load_json(str(path)).results == rates


class TestLearningRates:
    def test_results_in_the_order_added(self, rates):
        rates.add_result(0.1, [0.0])
        assert rates.results == [
            {"lr": 0.1, "loss_measurements": [4.0, 2.0], "loss_avg": 3.0},
            {"lr": 0.01, "loss_measurements": [5.0], "loss_avg": 5.0},
            {"lr": 0.1, "loss_measurements": [0.0], "loss_avg": 0.0},
        ]
        assert rates.dict() == {"results": rates.results}
        assert rates.get_result(0.1)["loss_avg"] == 3.0

    @pytest.mark.parametrize("kind", [ValueError, KeyError])
    def test_missing(self, rates, kind):
        with pytest.raises(kind, match=r"^no result at 0.2, there are \[0.1, 0.01\]"):
            rates.get_result(0.2)
        with pytest.raises(ValueError, match="no loss was measured"):
            rates.add_result(0.2, [])

    def test_files(self, rates, tmp_path):
        rates.save_json(tmp_path / "rates")
        assert LRLossSensitivityAnalysis.load_json(str(tmp_path / "rates.json")).dict() == (
            rates.dict()
        )

    def test_prints(self, rates, capsys):
        rates.print_res()
        assert capsys.readouterr().out.splitlines() == [
            "learning rate  loss",
            "0.1               3",
            "0.01              5",
        ]


def bars(axes):
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, (patch.get_width() for patch in axes.patches), strict=True))


class TestPlot:
    @pytest.fixture(autouse=True)
    def pyplot(self, monkeypatch):
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("Agg")
        from matplotlib import pyplot

        yield pyplot
        pyplot.close("all")

    def test_saves(self, loss, perf, rates, tmp_path):
        folder = tmp_path / "plots"
        assert loss.plot(str(folder / "loss.png"), True) == (None, None)
        assert perf.plot(folder / "perf.svg", title="speed") == (None, None)
        assert rates.plot(path=str(folder / "rates"), title="__default__") == (None, None)
        assert sorted(path.name for path in folder.iterdir()) == ["loss.png", "perf.svg", "rates"]
        assert all(path.stat().st_size > 1000 for path in folder.iterdir())

    def test_bars_of_the_loss(self, loss):
        figure, axes = loss.plot(None, plot_integral=True, normalize=False, title="mine")
        assert figure.axes == [axes] and axes.get_title() == "mine"
        assert bars(axes) == {"fc2": 1.125, "fc1": 0.625}
        _, axes = loss.plot(None, plot_integral=False, normalize=False)
        assert bars(axes) == {result.name: result.sparse_average for result in loss.results}
        assert axes.get_title() == ""

    def test_standardised(self, loss):
        _, axes = loss.plot(None, True, title="__default__")
        assert bars(axes) == pytest.approx({"fc2": 1.0, "fc1": -1.0})
        assert axes.get_title() == "Pruning Loss Sensitivity"
        loss = PruningLossSensitivityAnalysis()
        assert bars(loss.plot(None, True)[1]) == {}
        loss.add_result(None, "fc", 0, 0.5, 1.0, False)
        assert bars(loss.plot(None, True)[1]) == {"fc": 0.0}

    def test_bars_of_the_speed(self, perf):
        perf.add_result("id0", "fc1", 0, 0.9, 5.0, False)
        assert bars(perf.plot(None)[1]) == {"fc2": 0.5, "fc1": 4.0}

    def test_rates(self, rates):
        _, axes = rates.plot(None, "__default__")
        assert (axes.get_title(), axes.get_xscale()) == ("LR Sensitivity", "log")
        (line,) = axes.lines
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([0.01, 0.1], [5.0, 3.0])

    def test_shows_without_a_path(self, rates, pyplot, monkeypatch):
        shown = []
        monkeypatch.setattr(pyplot, "show", lambda: shown.append(1))
        rates.plot(None)
        assert shown == [1]

    def test_without_matplotlib(self, rates, loss, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match="pip install matplotlib"):
            rates.plot(tmp_path / "a.png")
        with pytest.raises(ImportError, match="pip install matplotlib"):
            loss.plot(None, True)
