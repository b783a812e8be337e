from __future__ import annotations

from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseml.pytorch.utils import (
    detach,
    tensor_export,
    tensors_batch_size,
    tensors_export,
    tensors_module_forward,
    tensors_to_device,
    tensors_to_precision,
)

_Pair = namedtuple("_Pair", "left right")


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (torch.zeros(3, 2), 3),
        ({"a": [], "b": (torch.zeros(4, 1), torch.zeros(5))}, 4),
        (iter([torch.zeros(2)]), 2),
        ([torch.tensor(1.0), torch.zeros(6)], 6),
        ([], -1),
        ("text", -1),
        (7, -1),
    ],
)
def test_batch_size(tensors: object, expected: int) -> None:
    assert tensors_batch_size(tensors) == expected


def test_to_device_keeps_kinds() -> None:
    tensor = torch.zeros(1)
    nested = {
        "list": [tensor],
        "tuple": (tensor, {"x": tensor}),
        "pair": _Pair(tensor, [tensor]),
        "ordered": OrderedDict(a=tensor),
        "generator": iter([tensor]),
    }
    moved = tensors_to_device(nested, "meta")
    assert moved["list"][0].is_meta
    assert isinstance(moved["tuple"], tuple)
    assert moved["tuple"][1]["x"].is_meta
    assert isinstance(moved["pair"], _Pair)
    assert moved["pair"].right[0].is_meta
    assert isinstance(moved["ordered"], OrderedDict)
    assert isinstance(moved["generator"], list)


def test_to_precision_leaves_integers() -> None:
    batch = (torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    half = tensors_to_precision(batch, full_precision=False)
    assert [t.dtype for t in half] == [torch.float16, torch.int64]
    assert tensors_to_precision(half, full_precision=True)[0].dtype == torch.float32


@pytest.mark.parametrize("function", [tensors_to_device, tensors_to_precision])
@pytest.mark.parametrize("bad", ["text", 3, [torch.zeros(1), None]])
def test_only_tensors_are_moved(function: object, bad: object) -> None:
    with pytest.raises(ValueError, match="expected a tensor"):
        function(bad, "cpu")  # type: ignore[operator]


def test_module_forward() -> None:
    def module(*args: object, **kwargs: object) -> object:
        return args, kwargs

    x, y = torch.zeros(1), torch.ones(1)
    assert tensors_module_forward(x, module) == ((x,), {})
    assert tensors_module_forward({"a": x}, module) == ((), {"a": x})
    assert tensors_module_forward([x, y, x], module) == ((x, y, x), {})
    assert tensors_module_forward((x, y), module) == ((x,), {})
    assert tensors_module_forward(({"a": x}, y), module) == ((), {"a": x})
    assert tensors_module_forward(((x, y), y), module) == ((x, y), {})
    assert tensors_module_forward((x, y), module, check_feat_lab_inp=False) == ((x, y), {})
    with pytest.raises(ValueError, match="cannot feed int"):
        tensors_module_forward(3, module)


def _load(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as content:
        return dict(content)


def test_tensor_export(tmp_path: Path) -> None:
    path = tensor_export(torch.arange(3), tmp_path / "new", "x")
    assert path == str(tmp_path / "new" / "x.npz")
    assert _load(path)["arr_0"].tolist() == [0, 1, 2]
    assert np.load(tensor_export(torch.ones(2), tmp_path, "x", npz=False)).tolist() == [1, 1]
    mapping = {"a": torch.ones(1, dtype=torch.bfloat16, requires_grad=True), "b": torch.zeros(2)}
    assert {k: v.tolist() for k, v in _load(tensor_export(mapping, tmp_path, "m")).items()} == {
        "a": [1.0],
        "b": [0.0, 0.0],
    }
    with pytest.raises(ValueError, match="holds one tensor, found a dict"):
        tensor_export(mapping, tmp_path, "m", npz=False)


def test_tensors_export(tmp_path: Path) -> None:
    paths = tensors_export([torch.zeros(1), torch.ones(1)], tmp_path, "inp", counter=9)
    assert [Path(path).name for path in paths] == ["inp-0009.npz", "inp-0010.npz"]
    assert len(tensors_export(torch.zeros(3, 2), tmp_path, "one")) == 1
    broken = tensors_export(torch.arange(3), tmp_path, "b", break_batch=True)
    assert [_load(path)["arr_0"].item() for path in broken] == [0, 1, 2]
    batch = {"x": torch.arange(2), "y": torch.arange(2) + 5}
    rows = [_load(path) for path in tensors_export(batch, tmp_path, "d", break_batch=True)]
    assert [(int(row["x"]), int(row["y"])) for row in rows] == [(0, 5), (1, 6)]
    with pytest.raises(ValueError, match=r"differ in their first dimension: \[2, 3\]"):
        tensors_export([torch.zeros(2), torch.zeros(3)], tmp_path, "u", break_batch=True)
    nested = tensors_export({"x": torch.zeros(1), "y": [torch.ones(2)]}, tmp_path, "n", counter=2)
    assert [Path(path).name for path in nested] == ["n-0002.npz", "n-0003.npz"]
    for break_batch in (True, False):
        with pytest.raises(ValueError, match="found int"):
            tensors_export(1, tmp_path, "u", break_batch=break_batch)


def test_detach() -> None:
    tensor = torch.ones(1, requires_grad=True)
    assert not detach(tensor).requires_grad
    assert not any(t.requires_grad for t in detach([tensor, tensor * 2]))
    assert not detach((tensor, [tensor]))[1][0].requires_grad
    with pytest.raises(ValueError, match="found dict"):
        detach({"a": tensor})
