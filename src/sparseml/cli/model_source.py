"""Building the model that a recipe is checked against."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from sparseml.cli.problems import Problem
from sparseml.run.errors import RunError
from sparseml.utils.references import described, resolve_reference
from sparseml.utils.text import did_you_mean


def build_model(source: str, computes: bool = False) -> Module:
    """Return a model with the right names and shapes; if possible without memory for weights.

    :param computes: with (random) weights, so that it can be run
    :param source: ``timm:NAME``, ``hf:DIR`` (a folder with a ``config.json``),
        ``fairseq:CHECKPOINT.pt``, or ``module.path:callable``, the user's own code, imported from
        the current folder too
    :raises Problem: if there is no such model or it cannot be built
    """
    kind, separator, rest = source.partition(":")
    if not separator or not rest or not kind:
        raise Problem(
            f"--model {source!r} must be timm:NAME, hf:DIR, fairseq:FILE.pt or "
            "module.path:callable, for example timm:deit_tiny_patch16_224"
        )
    builders = {"timm": _timm_model, "hf": _hugging_face_model}
    # what other people's code prints must not get between what we print
    with redirect_stdout(sys.stderr):
        if kind == "fairseq":
            return _fairseq_model(rest)
        return builders[kind](rest, computes) if kind in builders else _own_model(source)


def _built(build: Callable[[], Any], what: str, computes: bool) -> Module:
    """Build on the meta device; where a model computes with its weights, on the CPU after all."""
    try:
        with torch.device("cpu" if computes else "meta"):
            return build()
    except (NotImplementedError, RuntimeError):
        pass
    try:
        return build()
    except Exception as error:  # whatever a library's constructors may raise
        raise Problem(f"{what} cannot be built: {described(error)}") from error


def _timm_model(name: str, computes: bool) -> Module:
    timm = _optional("timm", "timm:NAME")
    if not timm.is_model(name.partition(".")[0]):
        known = did_you_mean(name, timm.list_models())
        raise Problem(f"--model timm:{name}: timm {timm.__version__} has no such model{known}")
    return _built(lambda: timm.create_model(name), f"--model timm:{name}", computes)


def _hugging_face_model(folder: str, computes: bool) -> Module:
    what, path = f"--model hf:{folder}", Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise Problem(f"{what}: no file config.json in that folder; models are not downloaded")
    transformers = _optional("transformers", "hf:DIR")
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise Problem(f"{what}: config.json is not usable: {described(error)}") from error
    architecture = getattr(transformers, next(iter(config.architectures or ()), ""), None)
    build = architecture or transformers.AutoModel.from_config
    return _built(lambda: build(config), what, computes)


def _fairseq_model(checkpoint: str) -> Module:
    from sparseml.fairseq.reading import quiet

    try:
        with quiet():
            _optional("fairseq", "fairseq:FILE.pt")
            from sparseml.fairseq.models import skeleton

            return skeleton(f"fairseq:{checkpoint}")
    except RunError as error:
        raise Problem(str(error)) from error


def _own_model(reference: str) -> Module:
    what = f"--model {reference}"
    try:
        found = resolve_reference(reference)
    except ValueError as error:
        raise Problem(f"--model {error}") from error
    if not callable(found):
        raise Problem(f"{what} is of type {type(found).__name__}; it must be callable, or a model")
    try:
        model = found if isinstance(found, Module) else found()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise Problem(f"{what}: calling it failed: {described(error)}") from error
    if not isinstance(model, Module):
        raise Problem(f"{what} must give a torch.nn.Module, it gave a {type(model).__name__}")
    return model


def _optional(package: str, form: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Problem(
            f"--model {form} needs {package}, which cannot be imported ({error}); "
            f"pip install 'sparseml-next[{package}]'"
        ) from error
