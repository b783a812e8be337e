"""What all distillation modifiers have in common."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.distillation import kl_logsoftmax, kldiv_loss
from sparseml.pytorch.sparsification.distillation.teacher import (
    Teacher,
    copy_as_teacher,
    teacher_outputs,
)
from sparseml.pytorch.sparsification.fields import (
    declared_fields,
    field,
    fixed,
    ignored,
    list_or_none,
    of_types,
)
from sparseml.pytorch.sparsification.modifier import Loggers, ScheduledUpdateModifier
from sparseml.pytorch.utils.model import load_model_state
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.text import did_you_mean, few, shortened

__all__ = ["BaseDistillationModifier", "kl_logsoftmax", "kldiv_loss"]

_LOGGER = logging.getLogger(__name__)
_DISABLE, _SELF = "disable", "self"
_KEYS = list_or_none("a list, or be left out for all")


class Watched(Protocol):
    """What layers of student and teacher gave in their last pass."""

    def clear(self) -> None:
        """Forget it."""

    def remove(self) -> None:
        """Watch them no more."""


@declared_fields()
class BaseDistillationModifier(ScheduledUpdateModifier):
    """Lets a model, the student, learn from another, the teacher, from start to end.

    Subclasses say how far student and teacher are apart (:meth:`compute_distillation_loss`) and
    how that joins the loss of the task (:meth:`compute_total_loss`). The step at ``end_epoch`` is
    the last one to be distilled.

    :param distill_output_keys: keys or positions of the outputs to compare; None for all
    :param teacher_input_keys: of a mapping of inputs, what the teacher is given; None for all
    :param update_frequency: accepted for the sake of old recipes; every step is distilled
    """

    start_epoch: float = -1.0
    end_epoch: float = -1.0
    distill_output_keys: Iterable[Any] | None = field(_KEYS, default=None)
    teacher_input_keys: Iterable[Any] | None = field(_KEYS, default=None)
    update_frequency: float = ignored(default=-1.0)
    end_comparator: int = fixed(-1)

    def _set_up(self) -> None:
        self._teacher: Teacher | None = None
        self._teaches_itself = False
        self._distillation_enabled = False
        self._teacher_state: Mapping[str, Tensor] | None = None
        self._last_losses: dict[str, Tensor | float] = {}
        self._features: Watched | None = None

    sparsification_types = of_types(SparsificationTypes.distillation)

    @abstractmethod
    def compute_distillation_loss(
        self,
        optimizer: Any,
        student_outputs: Any,
        teacher_outputs: Any,
        student_labels: Any,
        teacher_labels: Any,
    ) -> Tensor | float:
        """Return how far the student is from the teacher."""

    @abstractmethod
    def compute_total_loss(self, loss: Tensor, distillation_loss: Tensor | float) -> Tensor:
        """Return the loss to differentiate, from that of the task and that of the distillation."""

    def initialize(
        self,
        module: Module,
        epoch: float = 0,
        loggers: Loggers = None,
        distillation_teacher: Any = _DISABLE,
        **kwargs: Any,
    ) -> None:
        """Take the teacher.

        :param distillation_teacher: a module or other callable, ``"self"`` for a copy that is made
            of the student when distillation starts, or ``"disable"``, which leaves all losses as
            they are
        :raises ValueError: for anything else
        """
        self._take_teacher(distillation_teacher)
        if isinstance(self._teacher, Module) and (
            unwrap_module(self._teacher, root=True) is unwrap_module(module, root=True)
        ):
            _LOGGER.warning(
                "the teacher of %s is the student itself, which every loss puts into evaluation "
                "mode; 'self' would learn from a copy",
                type(self).__name__,
            )
        self._attach(module)
        super().initialize(module, epoch, loggers, **kwargs)

    def loss_update(
        self,
        loss: Tensor,
        module: Module,
        optimizer: Optimizer,
        epoch: float,
        steps_per_epoch: int,
        student_outputs: Any = None,
        student_inputs: Any = None,
        teacher_inputs: Any = None,
        student_labels: Any = None,
        teacher_labels: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the loss with the teacher's part in it, while distillation is on.

        :param student_outputs: what the student made of ``student_inputs``
        :param teacher_inputs: what to give to the teacher, by default ``student_inputs``
        :raises ValueError: without the student's inputs or outputs
        """
        loss = super().loss_update(loss, module, optimizer, epoch, steps_per_epoch, **kwargs)
        if self._distillation_enabled and self.update_ready(epoch, steps_per_epoch):
            if student_outputs is None or student_inputs is None:
                raise ValueError(
                    f"{type(self).__name__} needs the student's inputs and outputs: call "
                    "manager.loss_update(loss, module, optimizer, epoch, steps_per_epoch, "
                    "student_outputs=..., student_inputs=...)"
                )
            if teacher_inputs is None:
                teacher_inputs = self._inputs_for_teacher(student_inputs)
            self._look_at(module, student_inputs)
            loss = self._distilled(
                loss,
                optimizer=optimizer,
                student_outputs=student_outputs,
                teacher_outputs=teacher_outputs(self._ready_teacher(module), teacher_inputs),
                student_labels=student_labels,
                teacher_labels=teacher_labels,
            )
        if self._features is not None:
            self._features.clear()  # of passes, too, that were not distilled
        return loss

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """At the end, take what was done to the models back."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if epoch >= self._end_epoch >= 0.0:
            self._detach()

    def log_update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Log the last loss of the task, of the distillation, and of both together."""
        super().log_update(module, optimizer, epoch, steps_per_epoch)
        named = ((name, float(value)) for name, value in self._last_losses.items())
        self.log_named_scalars(named, epoch=epoch, steps_per_epoch=steps_per_epoch)

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Let go of the teacher."""
        super().finalize(module, reset_loggers, **kwargs)
        self._detach()
        self._teacher = self._teacher_state = None
        self._distillation_enabled = self._teaches_itself = False
        self._last_losses = {}

    def progress_state(self) -> dict[str, Any]:
        """Return the state, and in it the weights of a teacher that is a copy of the student."""
        state = self._teacher_state
        if self._teaches_itself and isinstance(self._teacher, Module):
            state = self._teacher.state_dict()
        return {**super().progress_state(), "teacher": None if self._ended else state}

    def load_structure_state(self, module: Module, state: Mapping[str, Any]) -> None:
        """Copy the student as a teacher again, before it gets the structure that it has by now."""
        super().load_structure_state(module, state)
        names = set(unwrap_module(module, root=True).state_dict())
        if self._teaches_itself and self._teacher is None and names == set(state["teacher"] or ()):
            self._teacher = copy_as_teacher(module)

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state, and the weights of a teacher that is a copy of the student."""
        super().load_progress_state(state)
        self._teacher_state = state["teacher"] if self._teaches_itself else None
        self._load_teacher_state()
        if self._ended:
            self._detach()

    def needs(self) -> dict[str, str]:
        """Return the extras of :meth:`initialize` that are asked for → what happens without."""
        return {"distillation_teacher": "it does nothing"}

    def _take_teacher(self, teacher: Any) -> None:
        known = teacher in (_DISABLE, _SELF) if isinstance(teacher, str) else callable(teacher)
        if not known:
            hint = did_you_mean(teacher, (_DISABLE, _SELF)) if isinstance(teacher, str) else ""
            raise ValueError(
                "distillation_teacher must be a module (or another callable), 'self' or 'disable', "
                f"found {shortened(teacher)}{hint}"
            )
        if teacher == _DISABLE:
            _LOGGER.warning("%s has no teacher and does nothing", type(self).__name__)
        self._teaches_itself = isinstance(teacher, str) and teacher == _SELF
        self._teacher = None if isinstance(teacher, str) else teacher
        self._teacher_state = None
        self._distillation_enabled = self._teaches_itself or self._teacher is not None

    def _attach(self, module: Module) -> None:
        """Prepare the models for the teacher, before the modifier counts as initialised."""

    def _detach(self) -> None:
        """Take back what :meth:`_attach` has done to the models."""
        if self._features is not None:
            self._features.remove()
            self._features = None

    def _look_at(self, module: Module, student_inputs: Any) -> None:
        """Take from the inputs what the distillation's loss needs of them."""

    def _distilled(self, loss: Tensor, **given: Any) -> Tensor:
        distillation_loss = self.compute_distillation_loss(**given)
        total = self.compute_total_loss(loss, distillation_loss)
        losses = {"task_loss": loss, "distillation_loss": distillation_loss, "total_loss": total}
        self._last_losses = {
            name: value.detach() if isinstance(value, Tensor) else value
            for name, value in losses.items()
        }
        return total

    def _watchable_teacher(self, module: Module) -> Module:
        """Return the teacher; a copy of the student is made at once.

        :raises ValueError: for a teacher that is no module
        """
        if self._teaches_itself:
            self._teacher = copy_as_teacher(module)
        if not isinstance(self._teacher, Module):
            raise ValueError(
                f"distillation_teacher must be a module whose layers can be watched, found "
                f"{type(self._teacher).__name__}"
            )
        return self._teacher

    def _ready_teacher(self, module: Module) -> Teacher:
        if self._teacher is None:
            self._teacher = copy_as_teacher(module)
            self._load_teacher_state()
        return self._teacher

    def _load_teacher_state(self) -> None:
        if self._teacher_state is not None and isinstance(self._teacher, Module):
            load_model_state(self._teacher, self._teacher_state, strict=True)
            self._teacher_state = None

    def _inputs_for_teacher(self, inputs: Any) -> Any:
        keys = self.teacher_input_keys
        if not keys or not isinstance(inputs, Mapping):
            return inputs
        missing = [key for key in keys if key not in inputs]
        if missing:
            raise ValueError(
                f"teacher_input_keys names {few(missing)}, the student's inputs are "
                f"{few(inputs, 8)}"
            )
        return {key: inputs[key] for key in keys}
