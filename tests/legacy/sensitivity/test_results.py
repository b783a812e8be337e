"""Holding, saving, printing and plotting measurements of sensitivity."""

from __future__ import annotations

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
    for sparsity, value in [(0.9, 4.0), (0.0, 1.0), (0.5, 2.0), (0.5, 4.0)]:
        result.add_measurement(sparsity, value, baseline=sparsity == 0.0)
    return result


@pytest.fixture(params=[PruningLossSensitivityAnalysis, PruningPerfSensitivityAnalysis])
def pruning(request):
    analysis = request.param()
    for index, name in reversed(list(enumerate(["fc1", "fc2"]))):
        for sparsity in (0.0, 0.5):
            analysis.add_result(f"id{index}", name, index, sparsity, sparsity + 1, sparsity == 0.0)
    return analysis


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
    assert default_pruning_sparsities_loss(False) == default_pruning_sparsities_perf() == coarse


class TestResult:
    def test_averages(self, result):
        assert result.averages == {0.0: 1.0, 0.5: 3.0, 0.9: 4.0}
        assert list(result.averages) == [0.0, 0.5, 0.9]
        assert result.has_baseline and result.baseline_average == 1.0

    def test_average_is_over_sparsities_too(self, result):
        assert result.sparse_average == pytest.approx((0.0 + 1.0 + 0.5 + 3.0 + 0.9 + 4.0) / 6)

    def test_integral(self, result):
        assert result.sparse_integral == pytest.approx(0.5 * 2.0 + 0.4 * 3.5)

    def test_comparison_at_the_nearest_sparsity(self, result):
        assert result.sparse_comparison() == 3.0
        assert result.sparse_comparison(0.6) == 2.0

    def test_nothing_to_compare_with(self):
        result = PruningSensitivityResult(None, "fc", 0, {0.5: [1.0]})
        assert not result.has_baseline
        with pytest.raises(ValueError, match="no baseline was measured for fc"):
            result.sparse_comparison()

    def test_round_trip(self, result):
        again = PruningSensitivityResult.from_dict(result.dict())
        assert again.dict() == result.dict() and again.sparse_comparison() == 3.0
        assert "fc.weight" in repr(result)


class TestPruningAnalysis:
    def test_results_in_the_order_of_the_model(self, pruning):
        assert [result.name for result in pruning.results] == ["fc1", "fc2"]
        assert pruning.get_result("fc2") is pruning.get_result("id1") is pruning.results[1]

    def test_missing_result(self, pruning):
        with pytest.raises(KeyError, match=r"no result of 'fc_1'; did you mean 'fc1'"):
            pruning.get_result("fc_1")

    def test_files(self, pruning, tmp_path):
        path = str(tmp_path / "a" / "sensitivity.json")
        pruning.save_json(path)
        again = type(pruning).load_json(path)
        assert type(again) is type(pruning) and again.dict() == pruning.dict()

    def test_prints(self, pruning, capsys):
        pruning.get_result("fc1")._baseline = None
        pruning.print_res()
        assert capsys.readouterr().out.splitlines() == [
            "layer  integral  at 0.9 against dense",
            "fc1       0.625                     -",
            "fc2       0.625                   0.5",
        ]


class TestLearningRates:
    def test_results_by_rate(self, rates):
        assert rates.results == [
            {"lr": 0.01, "loss_measurements": [5.0], "loss_average": 5.0},
            {"lr": 0.1, "loss_measurements": [4.0, 2.0], "loss_average": 3.0},
        ]
        assert rates.get_result(0.1)["loss_average"] == 3.0
        rates.add_result(0.1, [0.0])
        assert rates.get_result(0.1)["loss_average"] == 2.0

    def test_missing(self, rates):
        with pytest.raises(KeyError, match=r"no result at 0.2, there are \[0.01, 0.1\]"):
            rates.get_result(0.2)
        with pytest.raises(ValueError, match="no loss was measured"):
            rates.add_result(0.2, [])

    def test_files(self, rates, tmp_path):
        rates.save_json(tmp_path / "rates.json")
        assert LRLossSensitivityAnalysis.load_json(str(tmp_path / "rates.json")).dict() == (
            rates.dict()
        )

    def test_prints(self, rates, capsys):
        rates.print_res()
        assert capsys.readouterr().out.splitlines() == [
            "learning rate  loss",
            "0.01              5",
            "0.1               3",
        ]


class TestPlot:
    def test_draws_and_saves(self, pruning, rates, tmp_path):
        pytest.importorskip("matplotlib")
        for name, analysis in {"pruning": pruning, "rates": rates}.items():
            path = tmp_path / "plots" / f"{name}.png"
            (axes,) = analysis.plot(path, title=name).axes
            assert path.stat().st_size > 1000
            assert (axes.get_title(), axes.get_xlabel()) == (name, analysis.x_label)
            lines = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
            assert lines == {name: list(curve) for name, curve in analysis.curves().items()}
        assert axes.get_xscale() == "log"

    def test_without_matplotlib(self, rates, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match="pip install matplotlib"):
            rates.plot()
