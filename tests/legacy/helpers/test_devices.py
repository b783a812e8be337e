from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.utils import (
    default_device,
    device_of,
    device_to_name_ids,
    is_parallel_model,
    model_to_device,
    parallelize_model,
)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_default_device_without_gpu(no_gpu: None) -> None:
    assert default_device() == "cpu"


def test_default_device_names_all_gpus(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_device() == "cuda:0,1"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert default_device() == "cuda"


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", ("cpu", None)),
        ("cuda", ("cuda", None)),
        ("cuda:1", ("cuda:1", None)),
        ("cuda:0,1", ("cuda", [0, 1])),
    ],
)
def test_name_and_ids(two_gpus: None, device: str, expected: tuple[str, list[int] | None]) -> None:
    assert device_to_name_ids(device) == expected


@pytest.mark.parametrize("device", ["cuda:2", "cuda:0,2", "cuda:x", "cuda:-1", "tpu", "gpu:0"])
def test_bad_devices(two_gpus: None, device: str) -> None:
    with pytest.raises(ValueError, match=f"{device}"):
        device_to_name_ids(device)


def test_no_cuda(no_gpu: None) -> None:
    with pytest.raises(ValueError, match="no CUDA"):
        device_to_name_ids("cuda")


def test_device_of() -> None:
    meta = torch.zeros(1, device="meta")
    assert device_of(meta).type == "meta"
    assert device_of({"a": [], "b": ("text", [meta])}).type == "meta"
    with pytest.raises(RuntimeError, match="no tensor in the inputs, found list"):
        device_of([1])


def test_parallel_model_lets_attributes_through() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.note = "hello"
    parallel = parallelize_model(model, None)
    assert parallel.module is model
    assert parallel.note == "hello"
    assert is_parallel_model(parallel)
    assert not is_parallel_model(model)
    with pytest.raises(AttributeError, match="nothing"):
        _ = parallel.nothing


def test_model_to_device() -> None:
    model = nn.Linear(2, 2)
    assert model_to_device(model, "cpu") == (model, "cpu", None)
    with pytest.raises(ValueError, match="rank as an int"):
        model_to_device(model, "cpu", ddp=True)
