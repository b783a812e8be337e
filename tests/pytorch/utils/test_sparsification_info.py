from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.utils import LambdaLogger, LoggerManager, log_module_sparsification_info
from sparseml.pytorch.utils.sparsification_info.configs import (
    SparsificationPruning,
    SparsificationQuantization,
    SparsificationSummaries,
)
from sparseml.pytorch.utils.sparsification_info.module_sparsification_info import (
    ModuleSparsificationInfo,
)


def _net() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Identity(), nn.Linear(5, 2, bias=False))
    with torch.no_grad():
        for param in model.parameters():
            param.fill_(1.0)
        model[0].weight[:, 0] = 0.0  # 5 of 20
        model[0].bias.zero_()  # all, which is how biases start
    return model


def _scheme(weights: int | None, activations: int | None) -> SimpleNamespace:
    def args(bits: int | None) -> Any:
        return None if bits is None else SimpleNamespace(num_bits=bits)

    return SimpleNamespace(weights=args(weights), input_activations=args(activations))


def test_summaries() -> None:
    summaries = SparsificationSummaries.from_module(_net())
    assert summaries.operation_counts == {"Linear": 2, "ReLU": 1}
    assert summaries.parameter_counts == {"0.weight": 20, "0.bias": 5, "3.weight": 10}
    assert (summaries.pruned.count, summaries.pruned.percent) == (1, pytest.approx(1 / 3))
    assert (summaries.quantized.count, summaries.quantized.percent) == (0, 0.0)
    loose = SparsificationSummaries.from_module(_net(), pruning_thresholds=(0.0, 1.1))
    assert loose.pruned.count == 2


def test_summary_items() -> None:
    summaries = SparsificationSummaries.from_module(_net())
    prefix = "SparsificationSummaries"
    assert [tag for tag, _ in summaries.loggable_items()] == [
        f"{prefix}/OperationCounts",
        f"{prefix}/ParameterCounts",
        f"{prefix}/QuantizedOperations/percent",
        f"{prefix}/PrunedParameters/percent",
    ]
    everything = dict(summaries.loggable_items(percentages_only=False))
    assert everything[f"{prefix}/PrunedParameters/count"] == 1
    assert everything[f"{prefix}/QuantizedOperations/count"] == 0
    non_zero = dict(summaries.loggable_items(non_zero_only=True))
    assert f"{prefix}/QuantizedOperations/percent" not in non_zero


def test_pruning_items() -> None:
    items = dict(SparsificationPruning.from_module(_net()).loggable_items())
    prefix = "SparsificationPruning/SparseParameters"
    assert items == {
        f"{prefix}/0.weight/count": 5,
        f"{prefix}/0.weight/percent": 0.25,
        f"{prefix}/0.bias/count": 5,
        f"{prefix}/0.bias/percent": 1.0,
        f"{prefix}/3.weight/count": 0,
        f"{prefix}/3.weight/percent": 0.0,
    }
    part = SparsificationPruning.from_module(_net())
    few = dict(part.loggable_items(percentages_only=True, non_zero_only=True))
    assert list(few) == [f"{prefix}/0.weight/percent", f"{prefix}/0.bias/percent"]


def test_quantization_items() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(3)], nn.ReLU())
    model[1].quantization_scheme = _scheme(4, None)
    model[2].quantization_scheme = _scheme(8, 16)
    prefix = "SparsificationQuantization"
    info = SparsificationQuantization.from_module(model)
    assert dict(info.loggable_items()) == {
        f"{prefix}/Linear/enabled": False,
        f"{prefix}/Linear/precision": None,
        f"{prefix}/Linear_1/enabled": True,
        f"{prefix}/Linear_1/precision.weights/num_bits": 4,
        f"{prefix}/Linear_2/enabled": True,
        f"{prefix}/Linear_2/precision/weights/num_bits": 8,
        f"{prefix}/Linear_2/precision/input_activations/num_bits": 16,
        f"{prefix}/ReLU/enabled": False,
        f"{prefix}/ReLU/precision": None,
    }
    summaries = SparsificationSummaries.from_module(model)
    assert (summaries.quantized.count, summaries.quantized.percent) == (2, 0.5)


def test_quant_wrappers_are_looked_through() -> None:
    class QuantWrapper(nn.Module):
        def __init__(self, module: nn.Module):
            super().__init__()
            self.quant = nn.Flatten()
            self.module = module

    counts = SparsificationSummaries.from_module(
        nn.Sequential(QuantWrapper(nn.Linear(1, 1)))
    ).operation_counts
    assert counts == {"Linear": 1}


def test_tied_parameters_and_wrappers() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    info = ModuleSparsificationInfo.from_module(nn.DataParallel(torch.compile(model)))
    assert info.summary_info.parameter_counts == {"0.weight": 4}
    assert list(info.pruning_info.sparse_parameters) == ["0.weight"]
    assert info.summary_info.operation_counts == {"Linear": 2}


def test_the_report_survives_json() -> None:
    info = ModuleSparsificationInfo.from_module(_net())
    assert ModuleSparsificationInfo.model_validate_json(info.model_dump_json()) == info
    tags = [tag.partition("/")[0] for tag, _ in info.loggable_items()]
    assert list(dict.fromkeys(tags)) == [
        "SparsificationSummaries",
        "SparsificationPruning",
        "SparsificationQuantization",
    ]


def test_modules_without_parameters() -> None:
    info = ModuleSparsificationInfo.from_module(nn.Identity())
    assert info.summary_info.operation_counts == {}
    assert info.summary_info.pruned.percent == 0.0


def test_parameters_need_values() -> None:
    with pytest.raises(ValueError, match=r"parameter 0\.weight is on the meta device"):
        ModuleSparsificationInfo.from_module(nn.Sequential(nn.Linear(2, 2, device="meta")))


def test_only_modules() -> None:
    with pytest.raises(ValueError, match=r"module must be a torch\.nn\.Module, found str"):
        ModuleSparsificationInfo.from_module("model")  # type: ignore[arg-type]


def test_logging_separates_dicts_from_numbers() -> None:
    calls: list[dict[str, Any]] = []
    logger = LambdaLogger(lambda **kwargs: calls.append(kwargs))
    log_module_sparsification_info(_net(), LoggerManager([logger], log_python=False), step=7)
    assert {call["step"] for call in calls} == {7}
    with_values = [call["tag"] for call in calls if call["values"] is not None]
    assert with_values == [
        "SparsificationSummaries/OperationCounts",
        "SparsificationSummaries/ParameterCounts",
    ]
    assert len(calls) == len(list(ModuleSparsificationInfo.from_module(_net()).loggable_items()))
