from __future__ import annotations

import json
import logging
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.utils import GradSampler, ModuleSparsificationInfo


def _net() -> nn.Sequential:
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(4, 5))
    with torch.no_grad():
        for param in model.parameters():
            param.fill_(1.0)
        model[3].weight[:2] = 0.0  # 8 of 20
        model[3].bias[0] = 0.0
    return model


def test_counts() -> None:
    info = ModuleSparsificationInfo(_net())
    assert (info.params_total, info.params_sparse) == (8 + 4 + 8 + 20 + 5, 9)
    assert info.params_sparse_percent == pytest.approx(20.0)
    assert (info.params_prunable_total, info.params_prunable_sparse) == (28, 8)
    assert info.params_prunable_sparse_percent == pytest.approx(100 * 8 / 28)
    assert (info.params_quantizable, info.params_quantized) == (25, 0)
    assert info.params_quantized_percent == 0.0
    assert len(info.trainable_params) == 6
    assert info.params_info == {
        "0.weight": {"numel": 8, "sparsity": 0.0, "quantized": False},
        "3.weight": {"numel": 20, "sparsity": pytest.approx(0.4), "quantized": False},
    }


def test_text_is_json() -> None:
    content = json.loads(str(ModuleSparsificationInfo(_net())))
    assert list(content) == ["params_summary", "params_info"]
    assert list(content["params_summary"]) == [
        "total",
        "sparse",
        "sparsity_percent",
        "prunable",
        "prunable_sparse",
        "prunable_sparsity_percent",
        "quantizable",
        "quantized",
        "quantized_percent",
    ]
    assert content["params_info"]["3.weight"]["numel"] == 20


def test_only_trainable_parameters_count() -> None:
    model = _net()
    model[3].requires_grad_(False)
    info = ModuleSparsificationInfo(model)
    assert (info.params_total, info.params_sparse) == (20, 0)
    assert (info.params_prunable_total, info.params_quantizable) == (8, 0)
    assert list(info.params_info) == ["0.weight"]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dict_replaces_the_values(prefix: str) -> None:
    model = _net()
    state = {f"{prefix}{name}": torch.zeros_like(p) for name, p in model.state_dict().items()}
    info = ModuleSparsificationInfo(nn.DataParallel(model), state_dict=state)
    assert info.params_total == info.params_sparse == 45  # no running statistics
    assert info.params_info["3.weight"]["sparsity"] == 1.0
    partial = ModuleSparsificationInfo(model, state_dict={f"{prefix}3.weight": torch.zeros(5, 4)})
    assert partial.params_sparse == 21


def test_quantized_layers() -> None:
    model = _net()
    model[3].quantization_scheme = object()
    info = ModuleSparsificationInfo(model)
    assert (info.params_quantized, info.params_quantized_percent) == (25, 100.0)
    assert info.params_info["3.weight"]["quantized"] is True


def test_tied_weights_count_once() -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight[0] = 0.0
    info = ModuleSparsificationInfo(model)
    assert (info.params_total, info.params_sparse) == (12, 3)
    assert (info.params_prunable_total, info.params_prunable_sparse) == (12, 3)
    assert info.params_quantizable == 12


@pytest.mark.parametrize("module", [nn.ReLU(), nn.Sequential()])
def test_without_parameters(module: nn.Module) -> None:
    info = ModuleSparsificationInfo(module)
    assert info.params_total == info.params_sparse == 0
    assert info.params_sparse_percent == info.params_prunable_sparse_percent == 0.0
    assert json.loads(str(info))["params_info"] == {}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_empty_half_and_meta_parameters() -> None:
    empty = ModuleSparsificationInfo(nn.Linear(0, 3, bias=False))
    assert empty.params_info["weight"] == {"numel": 0, "sparsity": 0.0, "quantized": False}
    half = ModuleSparsificationInfo(_net().half())
    assert half.params_sparse == 9
    meta = ModuleSparsificationInfo(_net().to("meta"))
    assert meta.params_total == 45
    with pytest.raises(ValueError, match="meta device has no values"):
        _ = meta.params_sparse


def _samples(count: int) -> list[tuple[list[Any], dict[str, Any], torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        ([torch.randn(2, 3, generator=generator)], {}, torch.randn(2, 1, generator=generator))
        for _ in range(count)
    ]


def _collect(sampler: GradSampler, module: nn.Module, count: int) -> list[torch.Tensor]:
    grads = []
    for number in sampler.iter_module_backwards(module, count, progress_bar=False):
        grads.append(module.weight.grad.clone())
        assert number == len(grads)
    return grads


def test_gradients_are_those_of_each_sample() -> None:
    module, samples = nn.Linear(3, 1), _samples(4)
    grads = _collect(GradSampler(samples, nn.functional.mse_loss), module, 3)
    assert len(grads) == 3
    for grad, ((x,), _, target) in zip(grads, samples, strict=False):
        (expected,) = torch.autograd.grad(nn.functional.mse_loss(module(x), target), module.weight)
        assert torch.equal(grad, expected)
    assert module.weight.grad is None


def test_callable_loaders_are_called_each_time() -> None:
    calls = []

    def loader() -> Iterator[Any]:
        calls.append(1)
        yield from _samples(2)

    sampler = GradSampler(loader, nn.functional.mse_loss)
    for _ in range(2):
        assert len(_collect(sampler, nn.Linear(3, 1), 2)) == 2
    assert len(calls) == 2


def test_the_end_of_the_data_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    sampler = GradSampler(_samples(2), nn.functional.mse_loss)
    with caplog.at_level(logging.WARNING):
        assert len(_collect(sampler, nn.Linear(3, 1), 5)) == 2
    assert "ended after 2 of 5 gradients" in caplog.text


def test_no_sample_is_taken_beyond_the_last() -> None:
    taken: list[int] = []

    def loader() -> Iterator[Any]:
        for index, sample in enumerate(_samples(5)):
            taken.append(index)
            yield sample

    _collect(GradSampler(loader, nn.functional.mse_loss), nn.Linear(3, 1), 2)
    assert taken == [0, 1]
    assert _collect(GradSampler(loader, nn.functional.mse_loss), nn.Linear(3, 1), 0) == []


_Output = namedtuple("_Output", "logits extra")


@pytest.mark.parametrize(("kind", "unpacked"), [(tuple, True), (list, False), (_Output, False)])
def test_only_plain_tuples_are_unpacked(kind: Any, unpacked: bool) -> None:
    class Model(nn.Linear):
        def forward(self, x: torch.Tensor, scale: float = 1.0) -> Any:
            parts = (super().forward(x) * scale, "extra")
            return kind(*parts) if kind is _Output else kind(parts)

    seen: list[Any] = []

    def loss(output: Any, target: torch.Tensor) -> torch.Tensor:
        seen.append(output)
        return nn.functional.mse_loss(output if unpacked else output[0], target)

    samples = [(args, {"scale": 2.0}, target) for args, _, target in _samples(1)]
    _collect(GradSampler(samples, loss), Model(3, 1), 1)
    assert isinstance(seen[0], torch.Tensor) is unpacked


def test_progress_bar_is_shown_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    sampler = GradSampler(_samples(2), nn.functional.mse_loss)
    list(sampler.iter_module_backwards(nn.Linear(3, 1), 2))
    assert "2/2" in capfd.readouterr().err
    list(sampler.iter_module_backwards(nn.Linear(3, 1), 2, progress_bar=False))
    assert capfd.readouterr().err == ""


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"data_loader must be an iterable .*found int"):
        GradSampler(3, nn.functional.mse_loss)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loss_fn must be callable, found str"):
        GradSampler([], "mse")  # type: ignore[arg-type]
