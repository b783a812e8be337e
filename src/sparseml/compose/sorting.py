"""A small task to try block tuning on, without any data: sorting digits.

``sparseml.compose.sorting:model`` and ``sparseml.compose.sorting:data`` are what ``--model`` and
``--data`` of ``sparseml compose`` may name; :func:`train` gives the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseml.compose.origin import Data

DIGITS, LENGTH, WIDTH, HEADS, LAYERS = 12, 10, 48, 4, 2
PAD = 0


class Sorter(nn.Module):
    """A Transformer that reads digits (1 to 12; 0 is padding) and says them in order."""

    def __init__(self) -> None:
        super().__init__()
        self.digits = nn.Embedding(DIGITS + 1, WIDTH)
        self.places = nn.Embedding(2 * LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, DIGITS + 1)

    def forward(self, digits: Tensor) -> Tensor:
        """Return logits ``[batch, length, 13]`` of digits ``[batch, length]`` (int64)."""
        places = torch.arange(digits.shape[1], device=digits.device)
        hidden = self.digits(digits) + self.places(places)
        return self.head(self.encoder(hidden, src_key_padding_mask=digits == PAD))


class SortingData:
    """Digits at random, the same whenever an epoch is asked for.

    :param batches: in an epoch
    """

    def __init__(self, batches: int = 20, batch_size: int = 32, seed: int = 0) -> None:
        self.batches, self.batch_size, self.seed = batches, batch_size, seed
        self.fingerprint = f"sorting {batches} x {batch_size}, seed {seed}"

    def training(self, epoch: int) -> list[tuple[Tensor]]:
        """Return the batches of an epoch."""
        return self._drawn(self.batches, 1000 * self.seed + epoch + 1)

    def held_out(self) -> list[tuple[Tensor]]:
        """Return the batches by which the best state is chosen."""
        return self._drawn(4, 10**6 + self.seed)

    def masks(self, batch: tuple[Tensor]) -> dict[str, Tensor]:
        """Return which digits are real."""
        return {"": batch[0] != PAD}

    def loss(self, model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        """Return the cross-entropy of the sorted digits."""
        return F.cross_entropy(model(*batch).transpose(1, 2), _sorted(batch[0]), ignore_index=PAD)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the part of digits that are right, and the loss, of batches of their own."""
        right = total = 0
        losses = []
        for batch in self._drawn(8, 2 * 10**6 + self.seed):
            wanted, real = _sorted(batch[0]), batch[0] != PAD
            right += int((model(*batch).argmax(-1) == wanted)[real].sum())
            total += int(real.sum())
            losses.append(float(self.loss(model, batch)))
        return {"accuracy": right / total, "loss": sum(losses) / len(losses)}

    def _drawn(self, batches: int, seed: int) -> list[tuple[Tensor]]:
        lot = torch.Generator().manual_seed(seed)
        return [(_digits(self.batch_size, lot),) for _ in range(batches)]


def model() -> Sorter:
    """Return a model with new weights, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Sorter()


def data(**given: Any) -> Data:
    """Return the data; ``batch_size`` may be given."""
    return SortingData(**given)


def train(steps: int = 400, seed: int = 0) -> Sorter:
    """Return a model that has learned to sort."""
    sorter, lot = model(), SortingData(seed=seed)
    optimizer = torch.optim.Adam(sorter.parameters(), 3e-3)
    for batch in _forever(lot, steps):
        optimizer.zero_grad()
        lot.loss(sorter, batch).backward()
        optimizer.step()
    return sorter.eval()


def _forever(lot: SortingData, steps: int) -> Iterator[tuple[Tensor]]:
    epochs = -(-steps // lot.batches)
    batches = [batch for epoch in range(epochs) for batch in lot.training(10**4 + epoch)]
    yield from batches[:steps]


def _digits(size: int, lot: torch.Generator) -> Tensor:
    drawn = torch.randint(1, DIGITS + 1, (size, LENGTH), generator=lot)
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, (size, 1), generator=lot)
    return drawn.masked_fill(torch.arange(LENGTH) >= lengths, PAD)


def _sorted(digits: Tensor) -> Tensor:
    real = digits.masked_fill(digits == PAD, DIGITS + 1).sort(1).values
    return real.masked_fill(real == DIGITS + 1, PAD)
