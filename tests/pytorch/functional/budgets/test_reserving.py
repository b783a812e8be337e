from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseml.pytorch.functional.budgets import Global, Reserving, Uniform
from sparseml.pytorch.functional.patterns import FILTER, NM, Block, Unstructured
from sparseml.pytorch.functional.select import select

# the worked examples of Intel Neural Compressor's pruner: 4x1 blocks, 12, 8 and 20 of them
SHAPES = [(8, 6), (4, 8), (8, 10)]


def of_blocks(values: list[int]) -> list[Tensor]:
    """Scores of which each 4x1 block has one of ``values``, row-major through all tensors."""
    tensors, start = [], 0
    for out, in_ in SHAPES:
        count = out // 4 * in_
        blocks = torch.tensor(values[start : start + count], dtype=torch.float32)
        tensors.append(blocks.reshape(out // 4, in_).repeat_interleave(4, dim=0))
        start += count
    return tensors


def counts(masks: list[Tensor]) -> list[int]:
    return [int((~mask).sum()) // 4 for mask in masks]


RISING = of_blocks(list(range(1, 41)))
MIXED = of_blocks([17 * i % 41 + 1 for i in range(40)])


@pytest.mark.parametrize("again", [False, True], ids=["afresh", "one after another"])
@pytest.mark.parametrize(
    ("scores", "budget", "targets", "expected"),
    [
        (RISING, Reserving(0.98, 0, 0.5), (0.1, 0.3, 0.5), ((4, 0, 0), (11, 1, 0), (11, 7, 2))),
        (RISING, Reserving(0.75, 0, 0.5), (0.1, 0.3, 0.5), ((4, 0, 0), (9, 3, 0), (9, 6, 5))),
        (RISING, Reserving(0.75, 0.25, 0.5), (0.1, 0.3, 0.5), ((4, 0, 0), (9, 3, 0), (9, 6, 5))),
        (RISING, Reserving(0.98, 0.3, 0.5), (0.1, 0.3, 0.5), ((4, 0, 0), (11, 1, 0), (11, 3, 6))),
        (RISING, Reserving(0.5, 0.5, 0.5), (0.1, 0.3, 0.5), ((4, 0, 0), (6, 4, 2), (6, 4, 10))),
        (RISING, Uniform(down=True), (0.1, 0.3, 0.5), ((1, 0, 2), (3, 2, 6), (6, 4, 10))),
        (MIXED, Reserving(1.0, 0, 0.8), (0.3, 0.6, 0.8), ((4, 2, 6), (8, 4, 12), (10, 5, 17))),
        (MIXED, Reserving(0.55, 0.45, 0.8), (0.3, 0.6, 0.8), ((4, 2, 6), (6, 4, 11), (6, 4, 11))),
        (MIXED, Reserving(0.9, 0.75, 0.8), (0.3, 0.6, 0.8), ((4, 2, 6), (8, 4, 12), (10, 6, 16))),
    ],
)
def test_worked_examples(scores, budget, targets, expected, again):
    live = None
    for target, pruned in zip(targets, expected, strict=True):
        masks = select(scores, Block(4, 1), budget, target, live=live)
        assert counts(masks) == list(pruned)
        live = masks if again else None


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (0.125, ["1111011011111111", "1111111101101111"]),
        (0.25, ["0011011011111111", "1001111101101111"]),
        (0.5, ["0011011001101100", "1001100101100110"]),
    ],
)
def test_worked_example_of_two_in_four(target, expected):
    values = torch.tensor([11.0 * i % 37 + 1 for i in range(32)]).reshape(2, 2, 8)
    masks = select(list(values), NM(2, 4), Reserving(0.98, 0.0, 0.5), target)
    assert ["".join(map(str, mask.int().flatten().tolist())) for mask in masks] == expected


def random_scores(shapes, seed: int, ties: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if ties:
        return [torch.randint(0, 3, shape, generator=generator).float() for shape in shapes]
    return [
        torch.rand(1, generator=generator) + torch.rand(shape, generator=generator)
        for shape in shapes
    ]


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    final=st.integers(1, 99),
    step=st.integers(0, 4),
    seed=st.integers(0, 1000),
    ties=st.booleans(),
    data=st.data(),
)
def test_the_total_is_exact_and_the_limits_hold(sizes, final, step, seed, ties, data):
    high = data.draw(st.integers(final, 100)) / 100
    low = data.draw(st.integers(0, final)) / 100
    final /= 100
    target = final * step / 4
    scores = random_scores([(size,) for size in sizes], seed, ties)
    masks = select(scores, Unstructured(), Reserving(high, low, final), target)
    pruned = [int((~mask).sum()) for mask in masks]
    caps = [int(size * high + 1e-9) for size in sizes]
    assert sum(pruned) == min(int(sum(sizes) * target + 1e-6), sum(caps))
    assert all(count <= cap for count, cap in zip(pruned, caps, strict=True))
    if step == 4:
        # what whole units leave open: the rounding of the others' shares
        slack = len(sizes)
        assert all(count >= size * low - slack for count, size in zip(pruned, sizes, strict=True))
    for score, mask in zip(scores, masks, strict=True):
        assert mask.all() or not mask.any() or score[mask].min() >= score[~mask].max()


def test_limits_at_the_target_balance_all():
    scores = [torch.rand(64, 16), torch.rand(64, 32) + 1, torch.rand(16, 16) + 2]
    masks = select(scores, Block(4, 1), Reserving(0.9, 0.9, 0.9), 0.9)
    assert counts(masks) == [230, 460, 57]  # 256, 512 and 64 blocks
    without = select(scores, Block(4, 1), Reserving(1.0), 0.9)
    assert counts(without) == counts(select(scores, Block(4, 1), Global(), 748 / 832))


def test_held_back_for_the_end_but_not_before():
    low, high = torch.rand(100), torch.rand(100) + 1
    budget = Reserving(1.0, 0.3, final=0.5)
    on_the_way = select([low, high], Unstructured(), budget, 0.25)
    assert [int((~mask).sum()) for mask in on_the_way] == [50, 0]
    at_the_end = select([low, high], Unstructured(), budget, 0.5)
    assert [int((~mask).sum()) for mask in at_the_end] == [70, 30]


def test_units_of_many_sizes_are_counted_in_weights():
    scores = [torch.rand(16, 32), torch.rand(64, 8) + 1]
    masks = select(scores, FILTER, Reserving(0.75, 0.25), 0.5)
    assert [int((~mask).sum()) for mask in masks] == [384, 128]


def test_what_is_gone_already_counts_where_the_budget_is_tight():
    scores = [torch.rand(100), torch.rand(100) + 1]
    live = [torch.arange(100) >= 90, torch.ones(100, dtype=torch.bool)]
    # the first has lost more than its limit allows
    masks = select(scores, Unstructured(), Reserving(0.5), 0.5, live=live)
    assert [int((~mask).sum()) for mask in masks] == [90, 10]
