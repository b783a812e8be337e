"""Folders of small models with tokenizers, texts for them, and both runs as functions."""

from __future__ import annotations

import gzip
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the libraries warn of as they are imported
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("datasets")
    from sparseml.run import prune, train
    from sparseml.transformers import GLUE

WORDS = "the a film story was is very good great fine bad poor awful dull".split()  # noqa: SIM905
GOOD, BAD = WORDS[7:10], WORDS[10:]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROWS = {"train": 96, "dev": 30}
TOKENS = 400
"""Of the plain text."""

BERT_LAYERS = r"re:.*\.layer\.\d+\..*(query|key|value|dense)\.weight"
MAGNITUDE = """
pruning_modifiers:
  - !GlobalMagnitudePruningModifier
      params: ['PARAMS']
      init_sparsity: 0.3
      final_sparsity: 0.3
      start_epoch: 0
      end_epoch: 1
      update_frequency: 1
"""


def _save(folder: Path, model: Any) -> Path:
    (folder / "vocab.txt").parent.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]) + "\n")
    tokenizer = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _config(kind: str, **more: Any) -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    limits = {"vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": 32}
    return getattr(transformers, kind)(**sizes, **limits, pad_token_id=0, **more)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → folder of a model: bert (a classifier), encoder (without a head), gpt2, llama."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    bert = _config("BertConfig", intermediate_size=32, initializer_range=0.2)
    llama = _config("LlamaConfig", intermediate_size=24, num_key_value_heads=1)
    tied = _config("GPT2Config", bos_token_id=2, eos_token_id=3)
    models = {
        "bert": transformers.BertForSequenceClassification(bert),
        "encoder": transformers.BertModel(bert),
        "gpt2": transformers.GPT2LMHeadModel(tied),
        "llama": transformers.LlamaForCausalLM(llama),
    }
    return {name: _save(root / name, model) for name, model in models.items()}


@pytest.fixture(scope="session")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of SST-2, with train.tsv.gz and dev.tsv.gz."""
    folder, draw = tmp_path_factory.mktemp("sentiment"), random.Random(0)
    for split, count in ROWS.items():
        lines = ["sentence\tlabel"]
        for number in range(count):
            words = draw.choices(WORDS[:7], k=draw.randint(1, 6))
            words.append(draw.choice(GOOD if number % 2 else BAD))
            lines.append(f"{' '.join(words)}\t{number % 2}")
        (folder / f"{split}.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain text of 400 tokens."""
    draw = random.Random(1)
    text = " ".join(draw.choices(WORDS, k=TOKENS))
    file = tmp_path_factory.mktemp("story") / "story.txt.gz"
    file.write_bytes(gzip.compress(text.encode()))
    return file


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a recipe for BERT and one for causal models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert.yaml").write_text(MAGNITUDE.replace("PARAMS", BERT_LAYERS))
    causal = r"re:.*\.(layers|h)\.\d+\.(\w+\.)*(\w+_proj|c_\w+)\.weight"
    (tmp_path / "causal.yaml").write_text(MAGNITUDE.replace("PARAMS", causal))
    return tmp_path


@pytest.fixture
def call(workplace: Path, call_run: Callable[..., Any]) -> Callable[..., Any]:
    """Call a run, by default that of one shot; its results go to ``out/run``."""

    def called(*given: Any, fails: bool = False, run: Any = prune, threads: int = 1) -> Any:
        more = [] if run is train else ["--latency-rounds", 0]
        return call_run(run, GLUE, *more, *given, fails=fails, threads=threads)

    return called
