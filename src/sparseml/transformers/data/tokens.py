"""Texts as what a model reads: tokens, in batches no longer than need be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sparseml.transformers.data.tasks import TextTask

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["batches_of", "encode"]


def encode(
    rows: Dataset,
    task: TextTask,
    tokenizer: Any,
    max_length: int = 128,
    pad_to_max_length: bool = False,
    order: Sequence[int] | None = None,
) -> Dataset:
    """Return rows with what the tokenizer makes of their texts, and ``labels``.

    :param rows: with the columns of the task, as :func:`open_texts` gives them
    :param max_length: in tokens, after which a text is cut
    :param pad_to_max_length: make all equally long, rather than as batches need it
    :param order: the model's output for each label of the task, see :func:`label_order`
    """

    def tokenized(batch: dict[str, list[Any]]) -> dict[str, Any]:
        texts = [batch[key] for key in task.keys]
        padding = "max_length" if pad_to_max_length else False
        found = dict(tokenizer(*texts, padding=padding, max_length=max_length, truncation=True))
        labels = batch["label"]
        return {**found, "labels": labels if order is None else [order[one] for one in labels]}

    return rows.map(tokenized, batched=True, remove_columns=rows.column_names, desc="tokenising")


def batches_of(tokenizer: Any, half: bool = False) -> Callable[[list[Any]], dict[str, Any]]:
    """Return what makes a batch of encoded rows, padded to the longest of them.

    :param half: compute in half precision, which GPUs do fastest for multiples of 8 tokens
    """
    from transformers import DataCollatorWithPadding

    pad: Callable[[list[Any]], dict[str, Any]] = DataCollatorWithPadding(
        tokenizer, pad_to_multiple_of=8 if half else None
    )
    return pad
