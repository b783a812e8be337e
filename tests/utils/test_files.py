from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sparseml.legacy.helpers.json_text import read_json_text, write_json_text
from sparseml.utils import (
    NumpyArrayBatcher,
    ParallelWorker,
    clean_path,
    create_dirs,
    create_parent_dirs,
    create_unique_dir,
    is_package_available,
    is_url,
    load_numpy,
    path_file_count,
    path_file_size,
    save_numpy,
    tensor_export,
    tensors_export,
)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert clean_path("~/a/../b") == clean_path("b") == str(tmp_path / "b")
    create_dirs("~/x/y")
    create_dirs(tmp_path / "x" / "y")
    create_parent_dirs("p/q/file.txt")
    assert (tmp_path / "x" / "y").is_dir() and (tmp_path / "p" / "q").is_dir()
    assert not (tmp_path / "p" / "q" / "file.txt").exists()


def test_unique_folders(tmp_path: Path) -> None:
    made = [create_unique_dir(tmp_path / "new" / "run") for _ in range(3)]
    assert [os.path.basename(path) for path in made] == ["run-0000", "run-0001", "run-0002"]
    assert all(os.path.isdir(path) for path in made)


def test_counts_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("12345")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.npy").write_text("123")
    assert path_file_count(tmp_path) == 2
    assert path_file_count(tmp_path, "*.txt") == 1
    assert path_file_size(tmp_path / "a.txt") == 5
    assert path_file_size(tmp_path) == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.b/c", True),
        ("a/b", False),
        ("file.txt", False),
        ("http://", False),
        ("http://[", False),
    ],
)
def test_urls(text: str, expected: bool) -> None:
    assert is_url(text) is expected


def test_packages() -> None:
    assert is_package_available("json")
    assert not is_package_available("no_such_package")
    assert not is_package_available("no_such_package.inner")
    assert is_package_available("json", return_version=True) == (True, "N/A")
    assert is_package_available("no_such_package", return_version=True) == (False, "N/A")
    assert is_package_available("pytest", return_version=True) == (True, pytest.__version__)


def test_arrays(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    single = load_numpy(save_numpy(array, tmp_path / "new", "a", npz=False))
    assert isinstance(single, np.ndarray)
    np.testing.assert_array_equal(single, array)
    named = load_numpy(save_numpy({"x": array, "y": -array}, tmp_path, "b"))
    assert isinstance(named, dict) and list(named) == ["x", "y"]
    np.testing.assert_array_equal(named["y"], -array)
    assert len(load_numpy(save_numpy([array, array], tmp_path, "c"))) == 2
    assert os.path.basename(tensor_export(array, tmp_path, "d")) == "d.npz"


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = save_numpy(np.array([{"a": 1}], dtype=object), tmp_path, "o", npz=False)
    with pytest.raises(ValueError, match="allow_pickle"):
        load_numpy(path)


def test_exports_of_several_arrays(tmp_path: Path) -> None:
    one, two = np.zeros((2, 3)), np.ones((2, 1))
    paths = tensors_export({"a": one, "b": [two]}, tmp_path, "sample", counter=7)
    assert [os.path.basename(path) for path in paths] == ["sample-0007.npz", "sample-0008.npz"]
    assert len(tensors_export([one, two], tmp_path, "row", break_batch=True)) == 4
    with pytest.raises(ValueError, match="arrays are needed, found str"):
        tensors_export(["x"], tmp_path, "bad")


def test_batches() -> None:
    batcher = NumpyArrayBatcher()
    assert len(batcher) == 0
    for value in (1.0, 2.0):
        batcher.append({"x": np.full(3, value)})
    assert len(batcher) == 2
    assert batcher.stack()["x"].shape == (2, 3)
    with pytest.raises(ValueError, match=r"names must be \['x'\], found \['y'\]"):
        batcher.append({"y": np.zeros(3)})
    with pytest.raises(ValueError, match=r"x must have shape \(3,\), found \(4,\)"):
        batcher.append({"x": np.zeros(4)})
    assert len(batcher) == 2


def test_threads_keep_the_order() -> None:
    worker = ParallelWorker(lambda x: x * x, num_workers=3)
    with pytest.raises(RuntimeError, match="start"):
        next(iter(worker))
    worker.add(range(20))
    worker.add_item(20)
    worker.start()
    assert list(worker) == [x * x for x in range(21)]
    worker.indefinite = True
    results = iter(worker)
    assert [next(results) for _ in range(25)][20:] == [400, 0, 1, 4, 9]
    worker.shutdown()


def test_json_in_files_or_at_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "a.json"
    write_json_text('{"a": 1}', path)
    assert read_json_text(str(path)) == read_json_text(' {"a": 1}').strip() == '{"a": 1}'
    write_json_text("{}", None)
    assert capsys.readouterr().out == "{}\n"
