"""Reading checkpoints of fairseq, which torch takes for files that could run code."""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import logging
import pickle
import re
import typing
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sparseml.pytorch.utils.saving.files import CheckpointError, compare_checksums
from sparseml.run.errors import RunError, few, one_line

# Plain containers and numbers, which fairseq's files of all ages hold beside tensors. What they are
# called in the files is not always where they are now.
_SAFE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("fairseq.logging.meters", "AverageMeter TimeMeter StopwatchMeter", ("fairseq.meters",)),
    ("omegaconf.dictconfig", "DictConfig", ()),
    ("omegaconf.listconfig", "ListConfig", ()),
    ("omegaconf.nodes", "AnyNode", ()),
    ("omegaconf.base", "ContainerMetadata Metadata", ()),
    ("numpy.core.multiarray", "scalar", ()),
    ("numpy._core.multiarray", "scalar", ("numpy.core.multiarray",)),
    ("numpy", "dtype", ()),
    ("numpy.dtypes", "Float32DType Float64DType Int64DType", ()),
)
COMPARES = "compares_checksums"
"""An attribute of a function that reads checkpoints: that it compares their checksums itself."""
_UNSAFE = re.compile(r"GLOBAL ([\w.]+)")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep fairseq from warning of what is old in it as it is imported, and from telling its steps.

    Its warnings, as of sentences that are too long, are still told.
    """
    logger = logging.getLogger("fairseq")
    before = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            logger.setLevel(before)


@contextmanager
def fairseq_files() -> Iterator[None]:
    """Let ``torch.load(weights_only=True)``, and so fairseq's own loading, read its checkpoints.

    Within the block a namespace of arguments, meters, configurations and numpy's scalars may be in
    a file; they run no code. Everything else is refused as before.
    """
    found: list[Any] = [argparse.Namespace, typing.Any, collections.defaultdict, dict, list, int]
    for home, names, older in _SAFE:
        with contextlib.suppress(ImportError):
            module = importlib.import_module(home)
            for name in names.split():
                kind = getattr(module, name)
                found += [kind, *((kind, f"{path}.{name}") for path in older)]
    with torch.serialization.safe_globals(found):
        yield


def read_checkpoint(path: Path, what: str) -> dict[str, Any]:
    """Return the content of a checkpoint, brought up to date by fairseq, tensors on the CPU.

    :param what: what asked for it, for errors
    :raises RunError: if there is no such file, or it is no checkpoint of fairseq
    """
    if path.is_dir():
        there = few(sorted(file.name for file in path.glob("*.pt")))
        raise RunError(f"{what} is a folder; give one of the checkpoints in it: {there}")
    if not path.is_file():
        raise RunError(f"{what}: no such file")
    from fairseq import checkpoint_utils

    load = checkpoint_utils.load_checkpoint_to_cpu
    try:
        if not getattr(load, COMPARES, False):
            compare_checksums(path)
        with fairseq_files():
            state: dict[str, Any] = load(str(path))
    except pickle.UnpicklingError as error:
        unsafe = _UNSAFE.search(str(error))
        if unsafe is None:
            raise RunError(f"{what} is no checkpoint of fairseq, or damaged") from error
        raise RunError(
            f"{what} holds {unsafe[1]}, which is not read: a file that holds more than numbers and "
            "settings could run code"
        ) from error
    except PermissionError as error:
        raise RunError(f"{what} cannot be read: {error.strerror}") from error
    except CheckpointError:
        raise
    except Exception as error:  # what is in a file of another kind may trip up anything
        reason = one_line(error).partition(". ")[0]
        raise RunError(
            f"{what} is no checkpoint of fairseq, or damaged ({type(error).__name__}: {reason})"
        ) from error
    if not isinstance(state.get("model"), dict) or not (state.get("cfg") or state.get("args")):
        raise RunError(
            f"{what} is no checkpoint of fairseq: it has {few(sorted(map(str, state)), 6)}, "
            "not model and cfg"
        )
    return state
