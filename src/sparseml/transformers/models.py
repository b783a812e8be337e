"""Models of Transformers in folders, with their tokenizers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import cached_file
from transformers.utils import logging as library_logging

from sparseml.run.errors import RunError, few, one_line
from sparseml.utils.references import described

_LOGGER = logging.getLogger(__name__)

PREFIX = "hf:"
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.*", "*.model")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_CLASSIFIER = "ForSequenceClassification"


def short_name(model: str) -> str:
    """Return what a model is called in names of files."""
    name = model.removeprefix(PREFIX)
    return (Path(name).expanduser().resolve() if Path(name).is_dir() else Path(name)).name


def model_folder(model: str, flag: str = "--model") -> Path:
    """Return the folder of a model: the one that is named, or that in the cache of the hub.

    :param model: its folder or its name on the hub, after ``hf:``
    :param flag: that gave it, for errors
    :raises RunError: if there is none, or it holds no model
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
    return folder


def _cached(name: str, what: str) -> Path:
    path = Path(name).expanduser()
    if path.exists():
        raise RunError(f"{what} is a file; a model is a folder with config.json and weights")
    try:
        with _quiet():
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
        raise RunError(
            f"{flag} {folder}: config.json is not usable: {one_line(error)}"
        ) from error


def is_causal(config: Any) -> bool:
    """Return whether a model was made to tell the next token."""
    return _architecture(config).endswith(_CAUSAL)


def _architecture(config: Any) -> str:
    return next(iter(config.architectures or ()), "")


def load_tokenizer(folder: Path, flag: str) -> Any:
    """Return a tokenizer.

    :param flag: that gave the folder, with it, for errors
    :raises RunError: if there is none
    """
    if not folder.is_dir() or not any(one for kind in _TOKENIZERS for one in folder.glob(kind)):
        raise RunError(
            f"{flag} holds no tokenizer ({', '.join(_TOKENIZERS)}); --tokenizer DIR names another "
            "folder"
        )
    try:
        with _quiet():
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # libraries of tokenizers raise plain exceptions
        raise RunError(f"{flag}: the tokenizer cannot be read: {one_line(error)}") from error


def most_tokens(config: Any, tokenizer: Any) -> int:
    """Return how long an input may be."""
    limits = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
    return min((int(limit) for limit in limits if limit and limit > 0), default=1 << 30)


def load_causal(folder: Path, config: Any, what: str) -> tuple[nn.Module, bool]:
    """Return a causal model in float32, and whether all its weights were there.

    :param what: flag and model, for errors
    :raises RunError: if it cannot be loaded
    """
    return _load(transformers.AutoModelForCausalLM, folder, config, what)


def load_classifier(
    folder: Path, config: Any, labels: Sequence[str], what: str
) -> tuple[nn.Module, bool]:
    """Return a classifier of texts in float32, and whether all its weights were there.

    A model of another kind gets a head, untrained.

    :param labels: names of the classes, in the order of their numbers; none for a number
    :param what: flag and model, for errors
    :raises RunError: if it cannot be loaded, or tells other classes apart
    """
    if _architecture(config).endswith(_CLASSIFIER):
        _require_classes(config, labels, what)
    else:
        config.num_labels = len(labels) or 1
        if labels:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: number for number, label in enumerate(labels)}
    return _load(transformers.AutoModelForSequenceClassification, folder, config, what)


def _require_classes(config: Any, labels: Sequence[str], what: str) -> None:
    names = [str(config.id2label[number]) for number in range(config.num_labels)]
    outputs = len(labels) or 1
    if config.num_labels != outputs:
        task = f"classes ({few(labels, 5)})" if labels else "(a number)"
        raise RunError(
            f"{what} has {config.num_labels} outputs ({few(names, 5)}), the task has {outputs} "
            f"{task}: the model was trained for another one"
        )
    known, asked = ([name.lower() for name in one] for one in (names, labels))
    if sorted(known) == sorted(asked) and known != asked:
        raise RunError(
            f"{what} numbers its classes {', '.join(names)}, the task {', '.join(labels)}"
        )


def _load(kind: Any, folder: Path, config: Any, what: str) -> tuple[nn.Module, bool]:
    try:
        with _quiet():
            model, found = kind.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # a model's code, and readers of files, may raise anything
        raise RunError(f"{what} cannot be loaded: {described(error)}") from error
    if found["mismatched_keys"]:
        names = [str(one[0] if isinstance(one, tuple) else one) for one in found["mismatched_keys"]]
        raise RunError(f"{what}: weights have other shapes than config.json says: {few(names)}")
    missing = sorted(found["missing_keys"])
    if missing:
        _LOGGER.warning("%s has no weights for %s: they are random", what, few(missing))
    return model, not missing


@contextmanager
def _quiet() -> Iterator[None]:
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
