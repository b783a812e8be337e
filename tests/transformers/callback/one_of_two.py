"""Trains as a process of several, started by torchrun or accelerate; run by test_two_processes."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the library warns of as it is imported
    import transformers

    from sparseml.transformers import SparseMLCallback

RECIPE = """
modifiers:
  - !SnipMomentumPruningModifier
      params: ['re:.*(c_attn|c_fc).weight']
      init_sparsity: 0.25
      final_sparsity: 0.75
      start_epoch: 0.5
      end_epoch: 2.0
      update_frequency: 0.5
  - !DistillationModifier {hardness: 0.5, temperature: 2.0, start_epoch: 0}
"""


HIDDEN_STATES = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 3.0}
  - !HiddenStateDistillationModifier {weight: 2.0}
"""
"""The loss of the task is replaced, so that no gradient reaches pooler and head."""


def _classifier(seed: int) -> Any:
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    drop = dict.fromkeys(["hidden_dropout_prob", "attention_probs_dropout_prob"], 0.0)
    torch.manual_seed(seed)
    config = transformers.BertConfig(**sizes, **drop, num_attention_heads=2)
    return transformers.BertForSequenceClassification(config)


def _model(seed: int) -> Any:
    sizes = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    drop = dict.fromkeys(["resid_pdrop", "attn_pdrop", "embd_pdrop"], 0.0)
    torch.manual_seed(seed)
    config = transformers.GPT2Config(**sizes, **drop, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(config)


def train(folder: Path, processes: int, resumed: Path | None = None, hidden: bool = False) -> Any:
    """Return the model that a run of batches of 8 in all processes has trained."""
    make, recipe = (_classifier, HIDDEN_STATES) if hidden else (_model, RECIPE)
    rows = torch.randint(1, 32, (32, 8), generator=torch.Generator().manual_seed(1))
    arguments = transformers.TrainingArguments(
        folder,
        use_cpu=True,
        per_device_train_batch_size=8 // processes,
        num_train_epochs=3,
        learning_rate=0.1,
        optim="sgd",
        report_to=[],
        save_strategy="steps",
        save_steps=5,
        save_total_limit=3,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        ddp_backend="gloo" if processes > 1 else None,
    )
    trainer = transformers.Trainer(
        make(0),
        arguments,
        train_dataset=[
            {"input_ids": row, "labels": int(row[0] % 2) if hidden else row.clone()} for row in rows
        ],
        callbacks=[SparseMLCallback(recipe, teacher=make(5))],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    return trainer.model


def main() -> None:
    """Train a whole run, and one that goes on in the middle of an epoch."""
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    whole = train(folder / "whole", int(os.environ["WORLD_SIZE"])).state_dict()
    again = train(folder / "whole", int(os.environ["WORLD_SIZE"]), folder / "whole/checkpoint-5")
    hidden = train(folder / "hidden", int(os.environ["WORLD_SIZE"]), hidden=True).state_dict()
    differing = [name for name, value in again.state_dict().items() if not value.equal(whole[name])]
    torch.save(
        {"weights": whole, "differing": differing, "hidden": hidden}, folder / f"rank{rank}.pt"
    )
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
