"""Units that fade away while a model trains, against the same units removed at once.

Both begin with the same trained model, which turns sequences round, keep the same share of its
parameters and take the same number of steps in all; told is the loss on new sequences at the end.

    python benchmarks/gradual_shrinking.py --seeds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import SRPPruningModifier

WORDS, WIDTH, LENGTH, BATCH = 12, 32, 6, 32
DENSE, SHRINKING, TUNING = 300, 200, 200
"""Steps before anything shrinks, while it does, and after."""
FIELDS = {"compression_rate": 0.3, "start_epoch": 0.0, "end_epoch": 1.0, "num_scoring_batches": 8}


class Reverser(nn.Module):
    """Two layers of torch that tell each word of a sequence from the other end."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Parameter(0.3 * torch.randn(LENGTH, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits ``[batch * length, words]``."""
        return self.head(self.layers(self.words(ids) + self.positions)).flatten(0, 1)


def batches(seed: int) -> Iterator[tuple[list[Tensor], dict[str, Any], Tensor]]:
    """Yield sequences without an end, as a ``grad_sampler`` has them."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        ids = torch.randint(WORDS, (BATCH, LENGTH), generator=generator)
        yield [ids], {}, ids.flip(1).flatten()


def loss_after(seed: int, gradual: bool) -> float:
    """Return the loss of a model that has shrunk, on new sequences."""
    torch.manual_seed(seed)
    model, loss_of, data = Reverser(), nn.CrossEntropyLoss(), batches(seed)
    sampler = {"data_loader_builder": lambda: batches(seed + 1000), "loss_fn": loss_of}
    optimizer: Any = torch.optim.Adam(model.parameters(), 1e-3)

    def train(steps: int, stepping: Any) -> None:
        for _ in range(steps):
            (ids,), _, wanted = next(data)
            optimizer.zero_grad()
            loss_of(model(ids), wanted).backward()
            stepping.step()

    train(DENSE, optimizer)
    modifier = SRPPruningModifier(**FIELDS)
    if gradual:
        manager = ScheduledModifierManager([modifier])
        train(SHRINKING + TUNING, manager.modify(model, optimizer, SHRINKING, grad_sampler=sampler))
        manager.finalize(model)
    else:
        modifier.apply(model, grad_sampler=sampler)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        train(SHRINKING + TUNING, optimizer)
    new = batches(10**6)
    with torch.no_grad():
        (ids,), _, wanted = next(new)
        return float(loss_of(model.eval()(ids), wanted))


def main() -> None:
    """Print the loss of both ways, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many runs of each")
    better = 0
    count = parser.parse_args().seeds
    for seed in range(count):
        fading, at_once = loss_after(seed, True), loss_after(seed, False)
        better += fading < at_once
        print(f"seed {seed}: {fading:.4f} fading, {at_once:.4f} removed at once", flush=True)
    print(f"fading ends lower with {better} of {count} seeds")


if __name__ == "__main__":
    main()
