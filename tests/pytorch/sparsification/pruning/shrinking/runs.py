"""A small model under SRP, in a training run that may be looked at after every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.optim.step_driver import StepDriver
from sparseml.pytorch.sparsification import SRPPruningModifier

STEPS = 4
WORDS, WIDTH, FFN, CLASSES = 16, 8, 12, 3


class Classifier(nn.Module):
    """Two post-norm layers of torch between embeddings and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, FFN, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.words(ids)).mean(dim=1))


def batches(seed: int = 0) -> Iterator[tuple[list[Tensor], dict[str, Any], Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        ids = torch.randint(WORDS, (6, 5), generator=generator)
        yield [ids], {}, ids[:, 0] % CLASSES


SAMPLER = {"data_loader_builder": batches, "loss_fn": nn.functional.cross_entropy}


def recipe_of(*modifiers: str) -> str:
    return "modifiers:\n" + "\n".join(f"  - !SRPPruningModifier {{{one}}}" for one in modifiers)


WHOLE = "compression_rate: 0.4, start_epoch: 1.0, end_epoch: 3.0"


class Run:
    """A training run that may be looked at after every step."""

    def __init__(self, recipe: str, optimizer: str = "AdamW", seed: int = 0, **given: Any) -> None:
        torch.manual_seed(seed)
        self.model = Classifier().double()
        make = getattr(torch.optim, optimizer)
        self.optimizer = make(self.model.parameters(), lr=0.01, weight_decay=0.1)
        self.manager = ScheduledModifierManager.from_yaml(recipe)
        self.manager.initialize(self.model, grad_sampler=SAMPLER, **given)
        self.driver = StepDriver(self.model, self.optimizer, self.manager, STEPS)
        self.srp = [m for m in self.manager.modifiers if isinstance(m, SRPPruningModifier)]

    def step(self) -> float:
        """One step, on a batch that depends on nothing but its number."""
        (ids,), _, target = next(batches(100 + self.driver.position.steps))
        logits = self.model.train()(ids)
        loss = nn.functional.cross_entropy(logits, target)
        given = {"student_inputs": ids, "student_outputs": logits}
        loss = self.driver.loss_update(loss, **given)
        self.optimizer.zero_grad()
        loss.backward()
        self.driver.before_step()
        self.optimizer.step()
        self.driver.after_step()
        return loss.item()

    def steps(self, count: int) -> list[float]:
        return [self.step() for _ in range(count)]

    @property
    def size(self) -> int:
        return sum(param.numel() for param in self.model.parameters())

    @property
    def widths(self) -> tuple[int, int, int]:
        """Of the stream, of all heads of the first layer, of all feed-forward blocks."""
        layers = list(self.model.layers.layers)
        ffn = sum(layer.linear1.out_features for layer in layers)
        return self.model.words.weight.shape[1], layers[0].self_attn.out_proj.in_features, ffn


@torch.no_grad()
def outputs_of(model: nn.Module) -> Tensor:
    (ids,), _, _ = next(batches(7))
    return model.eval()(ids)
