"""Samples from files, and other small things by their old names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sparseml
from sparseml.utils import (
    NDARRAY_KEY,
    ROOT_PATH,
    ParallelWorker,
    deprecation_warning,
    json_to_jsonl,
    load_labeled_data,
    parse_optimization_str,
    save_numpy,
)
from sparseml.utils.worker import ParallelWorker as FromWorker
from sparseml.utils.wrapper import wrapper_decorator


class TestLabeledData:
    @pytest.fixture
    def folder(self, tmp_path):
        for number in range(3):
            save_numpy(np.full(2, number), tmp_path / "x", f"x-{number}", npz=False)
            save_numpy(np.array([number]), tmp_path / "y", f"y-{number}", npz=False)
        return tmp_path

    def test_files(self, folder) -> None:
        for data in (f"{folder}/x/*.npy", f"{folder}/x", sorted((folder / "x").iterdir())):
            pairs = load_labeled_data(data, f"{folder}/y/y-*.npy")
            assert [x.tolist() for x, _ in pairs] == [[0, 0], [1, 1], [2, 2]]
            assert [y.item() for _, y in pairs] == [0, 1, 2]
        assert [label for _, label in load_labeled_data(f"{folder}/x", None)] == [None] * 3

    def test_values(self) -> None:
        samples = [np.ones(2), {"ids": np.zeros(1)}]
        assert load_labeled_data(samples, [0, 1]) == [(samples[0], 0), (samples[1], 1)]

    def test_errors(self, folder, caplog) -> None:
        with pytest.raises(ValueError, match="3 samples, but 2 labels"):
            load_labeled_data(f"{folder}/x", [0, 1])
        (folder / "x" / "x-1.npy").write_text("no array")
        with pytest.raises(ValueError):
            load_labeled_data(f"{folder}/x", [0, 1, 2])
        pairs = load_labeled_data(f"{folder}/x", [0, 1, 2], raise_on_error=False)
        assert [label for _, label in pairs] == [0, 2] and "left out" in caplog.text


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pruned-moderate-deepsparse", ("pruned", "moderate", "deepsparse")),
        ("pruned-aggressive", ("pruned", "aggressive", None)),
        ("base", ("base", "none", None)),
        ("", ("base", "none", None)),
    ],
)
def test_names_of_optimizations(name, parts) -> None:
    assert parse_optimization_str(name) == parts


def test_json_to_jsonl(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"a": 1}, {"a": 2}]))
    json_to_jsonl(path, overwrite=False)
    assert (tmp_path / "a.jsonl").read_text() == '{"a": 1}\n{"a": 2}\n'
    json_to_jsonl(str(path))
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'
    path.write_text("{}")
    with pytest.raises(ValueError, match="must hold a list"):
        json_to_jsonl(path)


def test_small_things() -> None:
    assert NDARRAY_KEY == "ndarray" and Path(ROOT_PATH) == Path(sparseml.__file__).parent
    with pytest.warns(DeprecationWarning, match="use another"):
        (lambda: deprecation_warning("use another"))()
    assert FromWorker is ParallelWorker

    @wrapper_decorator
    def doubled(func, *args):
        return 2 * func(*args)

    assert doubled(lambda x: x + 1)(3) == 8


def test_items_from_other_threads() -> None:
    worker = ParallelWorker(lambda x: x * x, 2)
    worker.add([1])
    worker.add_async([2, 3])
    worker.add_async_generator(x for x in (4, 5))
    worker.start()
    assert sorted(worker) == [1, 4, 9, 16, 25]
    worker.shutdown()
