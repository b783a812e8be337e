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

EXAMPLES, TOKENS = 24, 8
Make = Callable[..., Any]


def _bert(dropout: float = 0.1, seed: int = 0, **sizes: int) -> nn.Module:
    given = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, **sizes}
    config = transformers.BertConfig(
        vocab_size=32,
        num_attention_heads=2,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **given,
    )
    torch.manual_seed(seed)
    return transformers.BertForSequenceClassification(config)


def _gpt2(seed: int = 0) -> nn.Module:
    sizes = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    drop = dict.fromkeys(["resid_pdrop", "attn_pdrop", "embd_pdrop"], 0.0)
    torch.manual_seed(seed)
    config = transformers.GPT2Config(**sizes, **drop, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(config)


def _t5(seed: int = 0) -> nn.Module:
    sizes = {"vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2}
    ids = {"num_heads": 2, "decoder_start_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(seed)
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, **ids))


def _vit(seed: int = 0) -> nn.Module:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = {"image_size": 8, "patch_size": 4, "num_attention_heads": 2, **sizes}
    torch.manual_seed(seed)
    return transformers.ViTForImageClassification(transformers.ViTConfig(**config))


_MODELS: dict[str, Make] = {"bert": _bert, "gpt2": _gpt2, "t5": _t5, "vit": _vit}


@pytest.fixture
def model_of() -> Make:
    """Makes a model of a kind."""
    return lambda kind="bert", **kwargs: _MODELS[kind](**kwargs)


@pytest.fixture
def data_of() -> Make:
    """Makes examples for a kind of model."""

    def make(kind: str = "bert", count: int = EXAMPLES) -> list[dict[str, Any]]:
        generator = torch.Generator().manual_seed(1)
        if kind == "vit":
            images = torch.randn(count, 3, 8, 8, generator=generator)
            return [{"pixel_values": one, "labels": i % 2} for i, one in enumerate(images)]
        rows = torch.randint(1, 32, (count, TOKENS), generator=generator)
        if kind == "bert":
            return [{"input_ids": row, "labels": int(row[0] % 2)} for row in rows]
        return [{"input_ids": row, "labels": row.clone()} for row in rows]

    return make


@pytest.fixture
def trainer_of(tmp_path: Path, model_of: Make, data_of: Make) -> Make:
    """Makes a Trainer, by default of a classifier; keywords are for TrainingArguments.

    A recipe may be given in place of a callback.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    def make(
        given: Any,
        model: nn.Module | None = None,
        data: Any = None,
        *,
        out: str = "out",
        more: dict[str, Any] | None = None,
        kind: type = transformers.Trainer,
        **settings: Any,
    ) -> Any:
        own = SparseMLCallback(given) if isinstance(given, str) else given
        chosen = {
            "use_cpu": True,
            "per_device_train_batch_size": 4,
            "num_train_epochs": 3,
            "learning_rate": 1e-2,
            "report_to": [],
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **settings,
        }
        keywords: dict[str, Any] = {"train_dataset": data_of() if data is None else data}
        if "model_init" not in (more or {}):
            keywords["model"] = model_of() if model is None else model
        arguments = transformers.TrainingArguments(tmp_path / out, **chosen)
        trainer = kind(args=arguments, callbacks=[own], **{**keywords, **(more or {})})
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    return make


@pytest.fixture
def same() -> Callable[[nn.Module, nn.Module], None]:
    """Checks that all weights are equal, bit for bit."""

    def check(one: nn.Module, other: nn.Module) -> None:
        states = one.state_dict(), other.state_dict()
        assert states[0].keys() == states[1].keys()
        differing = [name for name, value in states[0].items() if not value.equal(states[1][name])]
        assert not differing

    return check


@pytest.fixture
def zeros() -> Callable[[nn.Module], int]:
    """Counts the zeros among 512 weights of a classifier that the recipes here prune."""
    return lambda model: int((model.bert.encoder.layer[0].intermediate.dense.weight == 0).sum())
