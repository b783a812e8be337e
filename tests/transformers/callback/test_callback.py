"""A recipe runs in a Trainer as it does in a plain loop, and a resumed run as a whole one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager

MAGNITUDE = """
modifiers:
  - !MagnitudePruningModifier
      params: ['re:.*encoder.*(query|dense).weight']
      init_sparsity: 0.25
      final_sparsity: 0.75
      start_epoch: 0.5
      end_epoch: 2.0
      update_frequency: 0.5
"""


@pytest.fixture
def prune() -> Any:
    """The callback."""
    from sparseml.transformers import SparseMLCallback

    return SparseMLCallback


def same(one: nn.Module, other: nn.Module) -> None:
    """All weights are equal, bit for bit."""
    for (name, value), expected in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name


class TestSteps:
    @pytest.mark.parametrize("accumulated", [1, 2, 4])
    def test_equals_a_plain_loop(
        self, trainer_of: Any, small: Any, rows: Any, prune: Any, accumulated: int
    ) -> None:
        """With gradients accumulated, too; the last step of an epoch has fewer batches."""
        callback = prune(MAGNITUDE)
        trainer = trainer_of(
            callback,
            small(dropout=0.0),
            gradient_accumulation_steps=accumulated,
            train_sampling_strategy="sequential",
            lr_scheduler_type="constant",
            optim="sgd",
            max_grad_norm=0.5,
        )
        trainer.train()
        model = small(dropout=0.0)
        inner = torch.optim.SGD(model.parameters(), lr=1e-2)
        manager = ScheduledModifierManager.from_yaml(MAGNITUDE)
        batches = [rows()[start : start + 4] for start in range(0, 24, 4)]
        optimizer = manager.modify(model, inner, -(-len(batches) // accumulated))
        model.train()
        for _ in range(3):
            for start in range(0, len(batches), accumulated):
                for batch in batches[start : start + accumulated]:
                    tokens = torch.stack([row["input_ids"] for row in batch])
                    labels = torch.tensor([row["labels"] for row in batch])
                    # the Trainer takes this model's loss for one that it need not divide
                    model(input_ids=tokens, labels=labels).loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
        manager.finalize(model)
        for one, other in zip(trainer.model.parameters(), model.parameters(), strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
            assert torch.equal(one == 0, other == 0)
        layer = trainer.model.bert.encoder.layer[0]
        assert int((layer.intermediate.dense.weight == 0).sum()) == 384
        assert callback.summary().complete
        assert callback.driver is None


class TestResuming:
    @pytest.mark.parametrize("step", [4, 6, 8])
    def test_equals_a_whole_run(
        self, trainer_of: Callable[..., Any], small: Any, prune: Any, tmp_path: Path, step: int
    ) -> None:
        """In the middle of an epoch, at its end, and between two updates of the masks."""
        whole = trainer_of(prune(MAGNITUDE), save_strategy="steps", save_steps=step)
        whole.train()
        again = trainer_of(prune(MAGNITUDE))
        again.train(resume_from_checkpoint=str(tmp_path / f"out/checkpoint-{step}"))
        same(again.model, whole.model)
        saved = load_file(tmp_path / f"out/checkpoint-{step}/model.safetensors")
        zeros = int((saved["bert.encoder.layer.0.intermediate.dense.weight"] == 0).sum())
        assert 0 < zeros < 384
