from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.distributed as dist

from sparseml.pytorch.utils import record, set_deterministic_seeds, torch_distributed_zero_first
from sparseml.pytorch.utils.distributed import collective


def _draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002


def test_seeds_fix_all_generators() -> None:
    set_deterministic_seeds(3)
    first = _draw()
    set_deterministic_seeds(3)
    assert _draw() == first
    set_deterministic_seeds(4)
    assert _draw() != first


def test_one_process_never_waits() -> None:
    for rank in (-1, 0, 1, None):
        with torch_distributed_zero_first(rank):
            pass


@pytest.mark.parametrize(("rank", "expected"), [(0, ["work", "wait"]), (1, ["wait", "work"])])
def test_rank_zero_goes_first(
    monkeypatch: pytest.MonkeyPatch, rank: int, expected: list[str]
) -> None:
    events: list[str] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "barrier", lambda: events.append("wait"))
    with torch_distributed_zero_first(rank):
        events.append("work")
    assert events == expected


def test_others_are_released_when_rank_zero_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "barrier", lambda: waits.append(1))
    with pytest.raises(KeyError), torch_distributed_zero_first(0):
        raise KeyError
    assert waits == [1]


def test_who_waited_for_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    said = r"rank 1 of 4 .* exchanging masks: .* torch says: gone"
    with pytest.raises(RuntimeError, match=said), collective("exchanging masks"):
        raise RuntimeError("gone\nwith details")
    with pytest.raises(KeyError), collective("exchanging masks"):
        raise KeyError
    with collective("exchanging masks"):
        pass


def test_record_keeps_the_function() -> None:
    @record
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == 8
