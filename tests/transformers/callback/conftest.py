"""Small models of Transformers, data for them, and a Trainer that talks little."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the library warns of as it is imported
    transformers = pytest.importorskip("transformers")
    from sparseml.transformers import SparseMLCallback

EXAMPLES, BATCH, TOKENS = 24, 4, 8
EPOCHS = 3
STEPS = EXAMPLES // BATCH  # in an epoch

RECIPE = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 3.0}
  - !MagnitudePruningModifier
      params: ['re:.*encoder.*(query|dense).weight']
      init_sparsity: 0.25
      final_sparsity: 0.75
      start_epoch: 0.5
      end_epoch: 2.0
      update_frequency: 0.5
"""


def bert(dropout: float = 0.1) -> nn.Module:
    """A classifier of two layers."""
    config = transformers.BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


def examples(count: int = EXAMPLES, tokens: int = TOKENS) -> list[dict[str, Any]]:
    """Rows of tokens, and whether the first one is odd."""
    rows = torch.randint(32, (count, tokens), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": int(row[0] % 2)} for row in rows]


@pytest.fixture
def small() -> Callable[..., nn.Module]:
    """Makes the classifier."""
    return bert


@pytest.fixture
def rows() -> Callable[..., list[dict[str, Any]]]:
    """Makes data."""
    return examples


@pytest.fixture
def trainer_of(tmp_path: Path) -> Callable[..., Any]:
    """Makes a Trainer, by default of the classifier; keywords are TrainingArguments."""

    def make(
        callback: Any,
        model: nn.Module | None = None,
        data: Any = None,
        out: str = "out",
        trainer: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Any:
        given = {
            "use_cpu": True,
            "per_device_train_batch_size": BATCH,
            "num_train_epochs": EPOCHS,
            "learning_rate": 1e-2,
            "report_to": [],
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **settings,
        }
        callbacks = [callback] if isinstance(callback, SparseMLCallback) else list(callback)
        return transformers.Trainer(
            bert() if model is None else model,
            transformers.TrainingArguments(tmp_path / out, **given),
            train_dataset=examples() if data is None else data,
            callbacks=callbacks,
            **(trainer or {}),
        )

    return make
