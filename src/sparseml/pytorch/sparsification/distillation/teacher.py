"""The model that is learned from."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.tensors.nested import device_of, tensors_module_forward

Teacher = Callable[..., Any]


def needing_teacher(manager: Any) -> list[Any]:
    """Return the modifiers of a recipe that do nothing unless they are given a teacher."""
    return [one for one in manager.distillation_modifiers if "distillation_teacher" in one.needs()]


def copy_as_teacher(module: Module) -> Module:
    """A copy of the model inside all wrappers, in evaluation mode, that never trains."""
    teacher = copy.deepcopy(unwrap_module(module, root=True))
    return teacher.eval().requires_grad_(False)


def teacher_outputs(teacher: Teacher, inputs: Any) -> Any:
    """What the teacher, in evaluation mode and on the inputs' device, makes of ``inputs``.

    It is given a copy, so whatever it does to its inputs the student's stay as they are.
    """
    if isinstance(teacher, Module):
        teacher.eval()
        _move(teacher, inputs)
    with torch.no_grad():
        return tensors_module_forward(_copied(inputs), teacher, check_feat_lab_inp=False)


def _move(teacher: Module, inputs: Any) -> None:
    param = next(teacher.parameters(), None)
    with contextlib.suppress(RuntimeError):  # inputs without a tensor have no device
        device = device_of(inputs)
        if param is not None and param.device != device:
            teacher.to(device)


def _copied(value: Any) -> Any:
    """A deep copy that also works for tensors that are results of a computation."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    return copy.deepcopy(value)
