"""Models of Transformers in folders, with their tokenizers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers.utils import cached_file
from transformers.utils import logging as library_logging

from sparseml.run.errors import RunError, few, one_line
from sparseml.transformers.data.classifier import Classifier
from sparseml.transformers.errors import loading
from sparseml.transformers.shrunk import with_weights

PREFIX = "hf:"
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.*", "*.model")
_CAUSAL = ("ForCausalLM", "LMHeadModel")


def short_name(model: str) -> str:
    """Return what a model is called in names of files."""
    return Path(model.removeprefix(PREFIX)).expanduser().resolve().name


def model_folder(model: str, flag: str = "--model") -> Path:
    """Return the folder of a model and its tokenizer: as named, or in the cache of the hub.

    :param model: its folder or its name on the hub, after ``hf:``
    :param flag: that gave it, for errors
    :raises RunError: if there is none, or it lacks one of both
    """
    if not model.startswith(PREFIX):
        raise RunError(f"{flag} {model} must be hf: and the folder of a model, as hf:models/bert")
    name = model.removeprefix(PREFIX)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _cached(name, f"{flag} {model}")
    if not (folder / "config.json").is_file():
        found = few(sorted(path.name for path in folder.iterdir()), 6)
        raise RunError(f"{flag} {model} holds no model: no config.json in it, found {found}")
    if not any(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        raise RunError(f"{flag} {model} holds no weights, as model.safetensors")
    if not any(path for pattern in _TOKENIZERS for path in folder.glob(pattern)):
        raise RunError(f"{flag} {model} holds no tokenizer, as {' or '.join(_TOKENIZERS)}")
    return folder


def _cached(name: str, what: str) -> Path:
    path = Path(name).expanduser()
    if path.exists():
        raise RunError(f"{what} is a file; a model is a folder with config.json and weights")
    try:
        with quiet():
            return Path(cached_file(name, "config.json", local_files_only=True)).parent
    except (OSError, ValueError) as error:
        raise RunError(
            f"{what}: no such folder, and no such model in the cache of the hub; models are not "
            f"downloaded here: give a folder (`hf download {name} --local-dir DIR` makes one)"
        ) from error


def load_config(folder: Path, flag: str = "--model") -> Any:
    """Return the configuration of a model.

    :raises RunError: if it cannot be read
    """
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{flag} {folder}: config.json is not usable: {one_line(error)}") from error


def is_causal(config: Any) -> bool:
    """Return whether a model was made to tell the next token."""
    return next(iter(config.architectures or ()), "").endswith(_CAUSAL)


def most_tokens(config: Any, tokenizer: Any) -> int:
    """Return how long an input may be."""
    limits = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
    return min((int(limit) for limit in limits if limit and limit > 0), default=1 << 30)


def load_causal(folder: Path, config: Any, what: str) -> Classifier:
    """Return a causal model with its tokenizer, without labels.

    :param what: flag and model, for errors
    :raises RunError: if it cannot be loaded
    """
    with loading(what):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        kind = transformers.AutoModelForCausalLM
        model, missing = with_weights(kind, str(folder), config, local_files_only=True)
    return Classifier(model, tokenizer, None, tuple(missing))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library from telling what is told here, and from drawing bars."""
    level, bars = library_logging.get_verbosity(), library_logging.is_progress_bar_enabled()
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    try:
        yield
    finally:
        library_logging.set_verbosity(level)
        if bars:
            library_logging.enable_progress_bar()
