"""What a Trainer is given, as modifiers need it: inputs, and metadata."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from torch import nn

from sparseml.transformers.lent import parameters_of
from sparseml.utils.text import few

_LOGGER = logging.getLogger(__name__)

TEACHER_PREFIX = "distill_teacher:"
"""Begins the names of columns of a data set that are for the teacher alone."""


def student_inputs(inputs: Mapping[str, Any], student: nn.Module, teacher: Any) -> dict[str, Any]:
    """Return the inputs that are for the student.

    A model that takes any keywords gets all but those that only the teacher knows.
    """
    known, takes_any = parameters_of(student)
    others = parameters_of(teacher)[0] - known if callable(teacher) else set()
    return {
        name: value
        for name, value in inputs.items()
        if name in known
        or (takes_any and name not in others and not name.startswith(TEACHER_PREFIX))
    }


def teacher_inputs(inputs: Mapping[str, Any], teacher: Any) -> dict[str, Any] | None:
    """Return the inputs that are for the teacher; None for those of the student.

    These are what columns are named after :data:`TEACHER_PREFIX`, if any are, or else those that
    the teacher takes.
    """
    if not callable(teacher):
        return None
    own = {
        name.removeprefix(TEACHER_PREFIX): value
        for name, value in inputs.items()
        if name.startswith(TEACHER_PREFIX)
    }
    known, takes_any = parameters_of(teacher)
    if not known and takes_any:
        return own or None
    return own or {name: value for name, value in inputs.items() if name in known}


def metadata_of(
    names: Iterable[str] | None, training_args: Any, data_args: Any
) -> dict[str, Any] | None:
    """Return the arguments that a recipe is to remember, by name; None for none.

    :raises ValueError: if both have an argument of the same name
    """
    if names is None:
        return None
    training, data = _as_mapping(training_args), _as_mapping(data_args)
    if shared := sorted(set(training) & set(data)):
        raise ValueError(f"args and data_args must not share names, found {few(shared)} in both")
    found = {**training, **data}
    if missing := [name for name in names if name not in found]:
        _LOGGER.warning(
            "metadata_args names %s, which no arguments have: they are None", few(missing)
        )
    return {name: found.get(name) for name in names}


def _as_mapping(args: Any) -> Mapping[str, Any]:
    if args is None or isinstance(args, Mapping):
        return args or {}
    if hasattr(args, "to_dict"):
        return dict(args.to_dict())
    return asdict(args) if is_dataclass(args) and not isinstance(args, type) else vars(args)
