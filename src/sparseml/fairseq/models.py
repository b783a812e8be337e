"""Models of fairseq with their tasks, from checkpoints and back into them."""

from __future__ import annotations

import enum
import importlib
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import tasks, utils
from fairseq.criterions import build_criterion
from fairseq.data import Dictionary
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq.tasks.translation import TranslationTask
from omegaconf import OmegaConf, open_dict
from torch import nn

from sparseml.fairseq.checkpoints import UNITS_KEY
from sparseml.fairseq.reading import read_checkpoint
from sparseml.fairseq.shrunk import fit_to_weights, note_shrunk
from sparseml.pytorch.units.origins import origins_of, set_origins
from sparseml.run.errors import RunError, few, one_line
from sparseml.utils.atomic import atomic_path

PREFIX = "fairseq:"
_KNOWN = (TranslationTask, LanguageModelingTask)
# what it takes to know how many words a model of each kind has
_WORDS = {
    "source": ("encoder.embed_tokens.weight",),
    "target": ("decoder.embed_tokens.weight", "decoder.output_projection.weight"),
}


@dataclass
class Loaded:
    """A model with all that its checkpoint says of it.

    :param task: with dictionaries, not yet with data
    :param criterion: that it was trained by
    :param content: of the checkpoint, its configuration as plain data
    :param data: folder of the dictionaries
    """

    model: nn.Module
    task: Any
    criterion: nn.Module
    content: dict[str, Any]
    data: Path


def checkpoint_path(model: str) -> Path:
    """Return the file of a model that is given as ``fairseq:FILE``.

    :raises RunError: for anything else
    """
    if not model.startswith(PREFIX) or model == PREFIX:
        raise RunError(f"--model {model} must be fairseq: and a checkpoint, as fairseq:best.pt")
    return Path(model.removeprefix(PREFIX)).expanduser()


def short_name(model: str) -> str:
    """Return what a model is called in names of files: most checkpoints have the same names."""
    path = checkpoint_path(model).resolve()
    return f"{path.parent.name}-{path.stem}" if path.stem.startswith("checkpoint") else path.stem


def load_model(
    model: str,
    data: str,
    source: str | None = None,
    target: str | None = None,
    user_dir: str | None = None,
) -> Loaded:
    """Return a model of translation or language modelling from its checkpoint.

    :param data: folder of the dictionaries
    :param source: language, in place of what the checkpoint says; likewise ``target``
    :param user_dir: code of the user's own, which is imported
    :raises RunError: if there is no such checkpoint or folder, or they do not fit together
    """
    what = f"--model {model}"
    state = _content(model, user_dir)
    content = {**state, "cfg": plain_config(state["cfg"])}
    cfg = state["cfg"]
    kind = _task_kind(cfg, what)
    _require_dictionaries(Path(data).expanduser(), kind, cfg, source, target)
    with open_dict(cfg):
        cfg.task.data = str(Path(data).expanduser())
        cfg.task.eval_bleu = False
        if source or target:
            cfg.task.source_lang = source or cfg.task.source_lang
            cfg.task.target_lang = target or cfg.task.target_lang
    with _told(f"{what}: its task {cfg.task._name} cannot be set up with --data-dir {data}"):
        task = tasks.setup_task(cfg.task, from_checkpoint=True)
    _require_words(task, state["model"], what, data)
    built = _built(task, cfg, what)
    with _told(f"{what}: its weights do not fit the model that it says it is"):
        fit_to_weights(built, state["model"])
        built.load_state_dict(state["model"], strict=True, model_cfg=cfg.model)
    set_origins(built, (state.get("extra_state") or {}).get(UNITS_KEY, {}))
    with _told(f"{what}: its criterion cannot be built"):
        criterion = build_criterion(cfg.criterion, task, from_checkpoint=True)
    return Loaded(built, task, criterion, content, Path(data).expanduser())


def skeleton(model: str) -> nn.Module:
    """Return a model with the right names and shapes, if possible without memory for weights.

    No data are needed: of the dictionaries the checkpoint tells how many words they have.

    :raises RunError: if there is no such checkpoint, or its task is of another kind
    """
    what = f"--model {model}"
    state = _content(model, None)
    cfg, words = state["cfg"], {}
    kind = _task_kind(cfg, what)
    for side, names in _WORDS.items():
        found = next((state["model"][name] for name in names if name in state["model"]), None)
        words[side] = _dictionary(0 if found is None else len(found))
    with open_dict(cfg):
        cfg.task.eval_bleu = False
    sides = ["source", "target"] if issubclass(kind, TranslationTask) else ["target"]
    task = kind(cfg.task, *(words[side] for side in sides))
    try:
        with torch.device("meta"):
            built = _built(task, cfg, what)
    except RunError:  # a model that computes with its weights
        built = _built(task, cfg, what)
    fit_to_weights(built, state["model"])
    return built


def write_checkpoint(path: Path, model: nn.Module, loaded: Loaded) -> None:
    """Write a checkpoint that fairseq reads, also without leave to read more than plain data.

    :param loaded: where the model came from: all of its checkpoint but weights and the state of the
        optimizer is kept. The languages are named, so that no corpus is needed to tell them
    :raises OSError: if it cannot be written
    """
    content, task = loaded.content, loaded.task
    settings = dict(content["cfg"]["task"])
    if isinstance(task, TranslationTask):
        settings |= {"source_lang": task.cfg.source_lang, "target_lang": task.cfg.target_lang}
    kept: dict[str, Any] = {
        "args": None,
        "cfg": {**content["cfg"], "task": settings},
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": content.get("optimizer_history") or [],
        "task_state": content.get("task_state") or {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
    }
    if units := origins_of(model):
        kept["extra_state"][UNITS_KEY] = units
    with atomic_path(path) as part:
        torch.save(kept, part)


def plain_config(cfg: Any) -> dict[str, Any]:
    """Return a configuration of fairseq as dicts, lists, texts and numbers."""
    found: dict[str, Any] = _plain(OmegaConf.to_container(cfg, resolve=True))
    return found


def _content(model: str, user_dir: str | None) -> dict[str, Any]:
    importlib.import_module("sparseml.fairseq.srp.names")  # which checkpoints may name
    if user_dir is not None:
        with _told(f"--user-dir {user_dir} cannot be imported"):
            utils.import_user_module(Namespace(user_dir=user_dir))
    state = read_checkpoint(checkpoint_path(model), f"--model {model}")
    note_shrunk(state)
    return state


def _task_kind(cfg: Any, what: str) -> type:
    name = cfg.task._name
    kind = tasks.TASK_REGISTRY.get(name)
    if kind is None:
        raise RunError(f"{what} is of the task {name}, which fairseq does not know: --user-dir DIR")
    if not issubclass(kind, _KNOWN):
        raise RunError(
            f"{what} is of the task {name}: only translation and language_modeling are known here"
        )
    found: type = kind
    return found


def _require_dictionaries(
    folder: Path, kind: type, cfg: Any, source: str | None, target: str | None
) -> None:
    if not folder.is_dir():
        raise RunError(f"--data-dir {folder}: no such folder")
    needed = ["dict.txt"]
    if issubclass(kind, TranslationTask):
        languages = source or cfg.task.source_lang, target or cfg.task.target_lang
        needed = [f"dict.{language}.txt" for language in languages if language]
    lacking = [name for name in needed if not (folder / name).is_file()]
    there = sorted(file.name for file in folder.glob("dict*.txt"))
    if lacking or not there:
        names = few(lacking) if lacking else "dictionary"
        raise RunError(
            f"--data-dir {folder} has no {names} for a model of {cfg.task._name}; it has "
            f"{few(there)}: give the folder that fairseq-preprocess wrote"
        )


def _require_words(task: Any, weights: dict[str, Any], what: str, data: str) -> None:
    sides = {"target": task.target_dictionary}
    if isinstance(task, TranslationTask):
        sides["source"] = task.source_dictionary
    for side, dictionary in sides.items():
        for name in _WORDS[side]:
            known = len(weights[name]) if name in weights else len(dictionary)
            if known != len(dictionary):
                raise RunError(
                    f"{what} knows {known} {side} words, the dictionary in --data-dir {data} has "
                    f"{len(dictionary)}: it belongs to another model"
                )


def _dictionary(words: int) -> Dictionary:
    made = Dictionary()
    for number in range(words - len(made)):
        made.add_symbol(f"word{number}")
    return made


def _built(task: Any, cfg: Any, what: str) -> Any:
    with _told(f"{what}: the model {cfg.model._name} cannot be built"):
        return task.build_model(cfg.model, from_checkpoint=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.value if isinstance(value, enum.Enum) else value


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Tell in one line whatever fairseq, or code of the user's own, raises."""
    try:
        yield
    except Exception as error:
        raise RunError(f"{what}: {one_line(error)}") from error
