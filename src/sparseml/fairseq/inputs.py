"""Sentences, and blocks of text, in batches of about as many tokens each."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from fairseq import utils
from fairseq.data import data_utils
from fairseq.models.transformer import TransformerModelBase
from torch import Tensor
from torch.utils.data import DataLoader

from sparseml.fairseq.models import Loaded
from sparseml.run.errors import RunError, few, one_line

_LOGGER = logging.getLogger(__name__)
IGNORED = -100


@dataclass(frozen=True)
class Split:
    """A part of a binarised corpus.

    :param dataset: of fairseq
    :param indices: of the sentences or blocks that are used, the shortest first
    """

    name: str
    dataset: Any
    indices: Any
    max_tokens: int | None

    def __len__(self) -> int:
        return len(self.indices)

    def first(self, count: int) -> dict[str, Any]:
        """Return a batch of the first sentences or blocks."""
        chosen = sorted(self.indices)[:count]
        batch: dict[str, Any] = self.dataset.collater([self.dataset[index] for index in chosen])
        return batch

    def batches(self, sentences: int | None) -> list[list[int]]:
        """Return the indices of each batch, as fairseq divides them: by length.

        :param sentences: of a batch, at most
        :raises RunError: if there is one that alone is longer than a batch may be
        """
        try:
            found = self.dataset.batch_by_size(self.indices, self.max_tokens, sentences)
        except (AssertionError, ValueError) as error:
            raise RunError(f"--max-tokens {self.max_tokens}: {one_line(error)}") from error
        return [[int(index) for index in batch] for batch in found]

    def loader(self, batches: list[list[int]], shuffled: bool = False) -> DataLoader[Any]:
        """Return a loader of fairseq's batches: mappings with ``net_input`` and ``target``.

        :param shuffled: give the batches in random order, another one each time
        """
        order: Any = _InRandomOrder(batches) if shuffled else batches
        return DataLoader(self.dataset, batch_sampler=order, collate_fn=self.dataset.collater)


@dataclass(frozen=True)
class _InRandomOrder:
    batches: list[list[int]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for number in torch.randperm(len(self.batches)).tolist():
            yield self.batches[number]


@dataclass(frozen=True)
class Pairs:
    """Batches as modifiers take them: the model's keywords, and the tokens to tell.

    :param loader: of fairseq's batches
    :param model: that they are for
    """

    loader: DataLoader[Any]
    model: Any = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        # attention is no output then, so that heads and their channels may change
        more = {"alignment_layer": -1} if isinstance(self.model, TransformerModelBase) else {}
        for batch in self.loader:
            yield {**keywords(batch), **more}, labels(batch["target"], self.loader.dataset)


def labels(target: Tensor, dataset: Any) -> Tensor:
    """Return tokens to tell with -100, which losses of torch pass over, for padding."""
    words = getattr(dataset, "tgt_dict", None) or dataset.vocab
    return target.masked_fill(target == words.pad(), IGNORED)


def keywords(batch: dict[str, Any]) -> dict[str, Tensor]:
    """Return what of a batch of fairseq's a model is called with."""
    return {key: value for key, value in batch["net_input"].items() if isinstance(value, Tensor)}


def open_split(
    loaded: Loaded, max_tokens: int, name: str, flag: str, most: int | None = None
) -> Split:
    """Find a split of the corpus that belongs to a model.

    What is longer than the model takes is left out, which fairseq tells in a warning.

    :param max_tokens: of a batch, at most
    :param flag: that named the split, for errors
    :param most: use only the first so many sentences or blocks
    :raises RunError: if there is no such split, or nothing in it
    """
    task, folder = loaded.task, loaded.data
    try:
        task.load_dataset(name)
    except FileNotFoundError as error:
        there = sorted({file.name.partition(".")[0] for file in folder.glob("*.idx")})
        raise RunError(f"{flag} {name}: {folder} has no such split, it has {few(there)}") from error
    except Exception as error:  # files that are damaged, or of another kind
        raise RunError(f"{flag} {name} of {folder} cannot be read: {one_line(error)}") from error
    dataset = task.dataset(name)
    if getattr(dataset, "tgt", dataset) is None:
        raise RunError(f"{flag} {name} of {folder} has no target sentences to compare with")
    split = split_of(task, loaded.model, name, max_tokens, most)
    if not len(split):
        raise RunError(f"{flag} {name} of {folder} has nothing in it that the model takes")
    return split


def split_of(
    task: Any, model: Any, name: str, max_tokens: int | None, most: int | None = None
) -> Split:
    """Return a split that a task has loaded, without what is longer than the model takes."""
    dataset = task.dataset(name)
    with data_utils.numpy_seed(0):  # of equal length, some come first by chance
        indices = dataset.ordered_indices()
    indices = indices[indices < (len(dataset) if most is None else most)]
    limits = utils.resolve_max_positions(task.max_positions(), model.max_positions())
    indices = task.filter_indices_by_size(indices, dataset, limits, ignore_invalid_inputs=True)
    return Split(name, dataset, numpy.asarray(indices), max_tokens)
