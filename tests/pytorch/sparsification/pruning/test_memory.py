from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sparseml.pytorch.functional.second_order.blocks import block_layout
from sparseml.pytorch.functional.second_order.fisher import BlockFisher
from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import free_bytes, put_aside
from sparseml.pytorch.sparsification.pruning.sampling.shards import Piece
from sparseml.pytorch.sparsification.pruning.settings.memory import (
    as_memory,
    describe_bytes,
    parse_bytes,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4e9), ("1.5 gb", 1.5e9), ("512MiB", 2**29), ("7", 7), (12, 12), ("1kB", 1000)],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size
    assert as_memory("fisher_memory", text) == str(text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "4 XB", "0", True, "nan"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="fisher_memory: a size in memory is written as 4GB"):
        as_memory("fisher_memory", text)


def test_describes_sizes():
    assert [describe_bytes(n) for n in (12, 4_100, 3.2e6, 4.1e9, 5e12)] == [
        "12 B", "4.1 kB", "3.2 MB", "4.1 GB", "5e+03 GB"
    ]  # fmt: skip
    assert as_memory("fisher_memory", None) is None


def test_this_machine_has_memory():
    free = free_bytes(torch.device("cpu"))
    assert free is None or free > 1 << 20
    assert free_bytes(torch.device("meta")) is None


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="every file has a name here")
def test_matrices_put_aside_leave_no_file_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a process that is killed leaves none either."""
    weight = torch.ones(3, 4)
    fisher = BlockFisher(block_layout(weight.shape, 4))
    fisher.accumulate(torch.rand(5, 3, 4))
    inverse = fisher.factor(1e-3)
    seen: list[list[Path]] = []
    from_file = torch.from_file

    def mapped(*args: Any, **kwargs: Any) -> Any:
        seen.append([*tmp_path.rglob("*")])
        return from_file(*args, **kwargs)

    monkeypatch.setattr(torch, "from_file", mapped)
    [(_, moved)] = put_aside([(Piece(0, slice(0, 3)), inverse)], str(tmp_path))
    assert seen == [[]] and moved.inverse.equal(inverse.inverse)
    assert moved.inverse.data_ptr() != inverse.inverse.data_ptr()
