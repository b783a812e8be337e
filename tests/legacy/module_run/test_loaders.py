from __future__ import annotations

from itertools import islice

import pytest

from sparseml.pytorch.utils import early_stop_data_loader, infinite_data_loader


@pytest.mark.parametrize(
    ("steps", "expected"), [(2, [0, 1]), (5, [0, 1, 2]), (0, [0, 1, 2]), (-1, [0, 1, 2])]
)
def test_early_stop(steps: int, expected: list[int]) -> None:
    assert list(early_stop_data_loader(range(3), steps)) == expected


def test_early_stop_takes_no_batch_too_many() -> None:
    source = iter(range(5))
    assert list(early_stop_data_loader(source, 2)) == [0, 1]
    assert next(source) == 2


def test_infinite() -> None:
    assert list(early_stop_data_loader(data_loader=range(3), early_stop_steps=1)) == [0]
    assert list(islice(infinite_data_loader(data_loader=range(3)), 7)) == [0, 1, 2, 0, 1, 2, 0]
    assert list(islice(infinite_data_loader(range(3), early_stop_steps=2), 5)) == [0, 1, 0, 1, 0]


def test_cache_reads_the_data_once() -> None:
    cached = infinite_data_loader(iter(range(2)), cache=True)
    assert list(islice(cached, 5)) == [0, 1, 0, 1, 0]
    with pytest.raises(RuntimeError, match="no batches"):
        list(islice(infinite_data_loader(iter(range(2))), 5))


def test_empty_loader_is_no_endless_loop() -> None:
    with pytest.raises(RuntimeError, match="no batches"):
        next(infinite_data_loader([]))
