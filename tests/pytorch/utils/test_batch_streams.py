"""Batches that gradients are sampled on."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from sparseml.pytorch.utils import GradSampler
from sparseml.pytorch.utils.batch_streams import GradientBatches, make_grad_sampler


class Noisy(Dataset):
    """Images that are augmented by all three random generators."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))  # noqa: NPY002
        return torch.full((2,), index + noise), index % 3


def _batches(seed: int = 0, rank: int = 0, built: list[Any] | None = None) -> GradientBatches:
    def build() -> Any:
        if built is not None:
            built.append(1)
        return DataLoader(Noisy(), batch_size=2, shuffle=True)

    return GradientBatches(build, (seed, rank))


def _first(batches: GradientBatches, count: int = 3) -> torch.Tensor:
    return torch.stack([images[0] for images, _, _ in itertools.islice(batches, count)])


def test_sampling_and_training_draw_apart() -> None:
    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    sampled = _first(_batches())
    found = torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    assert torch.equal(found[0], expected[0]) and found[1:] == expected[1:]
    torch.rand(7)
    assert torch.equal(_first(_batches()), sampled)


def test_rounds_seeds_and_ranks_differ() -> None:
    batches = _batches()
    rounds = [_first(batches), _first(batches), _first(_batches(1)), _first(_batches(0, 1))]
    for one, other in itertools.combinations(rounds, 2):
        assert not torch.equal(one, other)


def test_a_resumed_run_goes_on_with_the_next_round() -> None:
    whole = _batches()
    _first(whole), _first(whole, 2)
    resumed = _batches()
    resumed.load_state_dict(whole.state_dict())
    assert torch.equal(_first(resumed), _first(whole))


def test_the_loader_is_built_when_it_is_needed() -> None:
    built: list[Any] = []
    batches = _batches(built=built)
    iter(batches)
    assert built == []
    assert len(list(batches)) == 3 and built == [1]


def test_samplers_of_several_processes_shuffle_anew() -> None:
    class Ordered:
        """Stands in for a sampler that shuffles by its epoch."""

        epochs: list[int] = []

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    loader = DataLoader(Noisy(), batch_size=2)
    sampler = Ordered()
    vars(loader)["sampler"] = sampler
    batches = GradientBatches(lambda: loader)
    _first(batches), _first(batches, 1)
    assert sampler.epochs == [0, 1]


@pytest.mark.parametrize("key", ["loss_fn", "loss_function"])
def test_modifiers_sample_streams_of_their_own_under_both_spellings(key: str) -> None:
    given = make_grad_sampler(lambda number: _batches(number))
    assert given[key] is cross_entropy
    first, second = (given["data_loader_builder"](any_keyword=1) for _ in range(2))
    model = torch.nn.Linear(2, 3)
    norms = [
        [
            float(model.weight.grad.norm())  # type: ignore[union-attr]
            for _ in GradSampler(loader, given[key]).iter_module_backwards(model, 3, False)
        ]
        for loader in (first, second)
    ]
    assert min(norms[0]) > 0 and not set(norms[0]) & set(norms[1])


def test_inputs_by_keyword_stay_so() -> None:
    ids, labels = torch.arange(6).view(2, 3), torch.tensor([0, 1])
    loader = [({"ids": ids, "mask": ids > 2}, labels)]
    ((args, kwargs, target),) = GradientBatches(lambda: loader)
    assert args == [] and list(kwargs) == ["ids", "mask"]
    assert torch.equal(kwargs["ids"], ids) and torch.equal(target, labels)
