"""What models of Transformers read: pieces of plain text, and texts with labels."""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from sparseml.run.errors import RunError, few, one_line
from sparseml.run.processes import Processes
from sparseml.run.session import Found, Metric
from sparseml.transformers.data.metrics import metrics_of, score
from sparseml.transformers.data.tasks import TextTask

Batch = tuple[dict[str, Tensor], Tensor]

NO_LOSS = -100
"""The label of a token that carries no loss."""

_TEXTS = (".txt", ".txt.gz")
_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev", "test")}


class Inputs(Protocol):
    """Inputs of one kind, and how answers to them are judged.

    :ivar metrics: what :meth:`Scores.found` tells
    :ivar train: to train and to sample gradients on
    :ivar validation: to evaluate on
    """

    @property
    def metrics(self) -> Sequence[Metric]: ...

    @property
    def train(self) -> Any: ...

    @property
    def validation(self) -> Any: ...

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Return a batch: keywords for the model, and labels."""

    def loss(self, output: Any, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch; padding carries none.

        :param output: of the model, with its ``logits``
        """

    def scores(self) -> Scores:
        """Return what adds up an evaluation."""


class Scores(Protocol):
    """An evaluation that is under way."""

    def add(self, output: Any, labels: Tensor) -> None:
        """Take in a batch."""

    def found(self, where: Processes) -> Found:
        """Return what all processes together have found."""


@dataclass(frozen=True)
class PlainText:
    """Plain text in pieces of equal length, for a model that tells the next token.

    :param train: tokens ``[pieces, window]``
    :param validation: likewise
    """

    train: Tensor
    validation: Tensor

    metrics: Sequence[Metric] = (
        Metric("loss", "val/loss", percent=False),
        Metric("perplexity", "val/perplexity", percent=False),
    )

    def collate(self, samples: Sequence[Tensor]) -> Batch:
        """Return pieces, which are their own labels."""
        tokens = torch.stack(list(samples))
        return {"input_ids": tokens}, tokens

    def loss(self, output: Any, labels: Tensor) -> Tensor:
        """Return the mean loss of the tokens, each told from those before it in its piece."""
        return _token_loss(output.logits, labels, "mean")

    def scores(self) -> Scores:
        """Return what adds up the loss."""
        return _TokenScores()


def _token_loss(logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
    told = logits[:, :-1].flatten(0, 1).float()
    return cross_entropy(told, labels[:, 1:].flatten(), ignore_index=NO_LOSS, reduction=reduction)


class _TokenScores:
    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, output: Any, labels: Tensor) -> None:
        self._sum += float(_token_loss(output.logits, labels, "sum"))
        self._count += int((labels[:, 1:] != NO_LOSS).sum())

    def found(self, where: Processes) -> Found:
        total, count = where.sum([self._sum, float(self._count)])
        loss = total / count
        return {"loss": loss, "perplexity": math.exp(loss) if loss < 700 else math.inf}


def open_plain_text(
    tokenizer: Any,
    window: int,
    *,
    path: str | None = None,
    train_file: str | None = None,
    validation_file: str | None = None,
    held_out: float = 0.25,
) -> PlainText:
    """Read plain text, and cut it into pieces of ``window`` tokens; a rest at the end is left out.

    :param path: a folder with a text for training and one for validation, or a single text, the
        last ``held_out`` of whose pieces are for validation
    :param train_file: with ``validation_file``, in the place of the folder
    :raises RunError: for files that are not there, are no text, or too short
    """
    train, validation = text_files(path, train_file, validation_file)
    pieces = _pieces(train, tokenizer, window)
    if validation is not None:
        return PlainText(pieces, _pieces(validation, tokenizer, window))
    if len(pieces) < 2:
        raise _too_short(train, window * len(pieces), 2 * window, "a window each to train and test")
    kept = min(max(1, round(len(pieces) * held_out)), len(pieces) - 1)
    return PlainText(pieces[:-kept], pieces[-kept:])


def text_files(
    path: str | None, train_file: str | None, validation_file: str | None
) -> tuple[Path, Path | None]:
    """Return the file to train on and that to validate on; None for the end of the first.

    :raises RunError: if they are not there
    """
    if train_file or validation_file:
        if path or not (train_file and validation_file):
            raise RunError("give --data-dir, or both --train-file and --validation-file")
        return _text(train_file, "--train-file"), _text(validation_file, "--validation-file")
    if path is None:
        raise RunError(
            "give --data-dir, a plain text or a folder with one called train and one dev"
        )
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return _text(path, "--data-dir"), None
    there = sorted(file.name for file in folder.iterdir())
    chosen = []
    for split, stems in _SPLITS.items():
        names = [f"{stem}{ending}" for stem in stems for ending in _TEXTS]
        found = next((folder / name for name in names if name in there), None)
        if found is None:
            raise RunError(
                f"--data-dir {path} has no plain text for {split} ({' or '.join(stems)}, "
                f"{' or '.join(_TEXTS)}), it has {few(there, 6)}; tables of texts with labels need "
                "--task or a model that is a classifier"
            )
        chosen.append(found)
    return chosen[0], chosen[1]


def _text(path: str, flag: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise RunError(f"{flag} {path}: {'is no file' if file.exists() else 'no such file'}")
    if not file.name.endswith(_TEXTS):
        raise RunError(
            f"{flag} {path}: a causal model takes plain text ({' or '.join(_TEXTS)}); a table of "
            "texts with labels needs --task or a model that is a classifier"
        )
    return file


def _pieces(file: Path, tokenizer: Any, window: int) -> Tensor:
    """Return all whole pieces of a text, ``[pieces, window]``."""
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise RunError(f"{file} cannot be read as text: {one_line(error)}") from error
    tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    count = len(tokens) // window
    if not count:
        raise _too_short(file, len(tokens), window, "one window")
    return torch.tensor(tokens[: count * window]).view(count, window)


def _too_short(file: Path, tokens: int, needed: int, what: str) -> RunError:
    return RunError(
        f"{file} is too short: {tokens} tokens, {what} takes {needed}; give a smaller --window"
    )


@dataclass(frozen=True)
class LabelledTexts:
    """Texts, or pairs of texts, with labels; they become tokens when they are asked for.

    :param train: rows with the texts, and ``label``
    :param validation: likewise
    :param length: in tokens, after which a text is cut
    :param order: the model's output for each label of the task; None for regression
    """

    task: TextTask
    train: Any
    validation: Any
    tokenizer: Any
    length: int
    order: list[int] | None

    @property
    def metrics(self) -> Sequence[Metric]:
        """Return those of the task."""
        return metrics_of(self.task)

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Return texts, padded to the longest, with their labels as numbers of outputs."""
        texts = [[one[key] for one in samples] for key in self.task.keys]
        found = self.tokenizer(
            *texts, truncation=True, max_length=self.length, padding=True, return_tensors="pt"
        )
        labels = [one["label"] for one in samples]
        if self.order is None:
            return dict(found), torch.tensor(labels, dtype=torch.float32)
        return dict(found), torch.tensor([self.order[label] for label in labels])

    def loss(self, output: Any, labels: Tensor) -> Tensor:
        """Return the mean cross entropy, or squared error."""
        logits = output.logits.float()
        if self.task.is_regression:
            return mse_loss(logits.squeeze(-1), labels)
        return cross_entropy(logits, labels)

    def scores(self) -> Scores:
        """Return what keeps all answers, which correlations are computed of."""
        return _LabelScores(self)


class _LabelScores:
    def __init__(self, inputs: LabelledTexts) -> None:
        self._inputs = inputs
        self._answers: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._loss = 0.0

    def add(self, output: Any, labels: Tensor) -> None:
        self._loss += float(self._inputs.loss(output, labels)) * len(labels)
        self._answers.append(output.logits.float().cpu())
        self._labels.append(labels.cpu())

    def found(self, where: Processes) -> Found:
        own = (torch.cat(self._answers), torch.cat(self._labels)) if self._answers else None
        parts = [part for part in where.gather(own) if part is not None]
        answers, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        if self._inputs.order is not None:  # metrics of two classes ask for those of the task
            order = torch.tensor(self._inputs.order)
            answers, labels = answers[:, order], order.argsort()[labels]
        (loss,) = where.sum([self._loss])
        return {**score(self._inputs.task, answers, labels), "loss": loss / len(labels)}
