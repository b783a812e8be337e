from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import free_bytes
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
