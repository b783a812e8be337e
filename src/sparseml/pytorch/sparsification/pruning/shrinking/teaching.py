"""The teacher of a model that shrinks: the model as it was, unless another one is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.distillation import kldiv_loss, paired_heads
from sparseml.pytorch.sparsification.distillation.padding import known_tokens
from sparseml.pytorch.sparsification.distillation.teacher import (
    Teacher,
    copy_as_teacher,
    teacher_outputs,
)
from sparseml.pytorch.utils.model import load_model_state

_SELF = "self"


class Teaching:
    """A teacher's part in a loss: how far a student's predictions are from the teacher's.

    ``loss + weight * D``, where D is the divergence at a temperature, times its square, averaged
    over all predictions that are not for padding. The teacher is in eval mode.

    :param module: the student, of which a copy is made where no teacher is given
    :param given: a module or another callable; ``"self"`` and None for the copy
    :raises ValueError: for anything else
    """

    def __init__(self, module: Module, given: Any, weight: float, temperature: float) -> None:
        self._owned = given is None or (isinstance(given, str) and given == _SELF)
        if not self._owned and not callable(given):
            raise ValueError(
                "distillation_teacher must be a module (or another callable), 'self' or "
                f"'disable', found {given!r}"
            )
        self._teacher: Teacher = copy_as_teacher(module) if self._owned else given
        self._weight, self._temperature = weight, temperature
        self._seen: Any = None  # what the student was given to score its units

    def added_to(
        self, loss: Tensor, module: Module, inputs: Any, outputs: Any, labels: Any = None
    ) -> Tensor:
        """Return the loss with the teacher's part.

        :param inputs: of the student; the teacher is given the same
        :raises ValueError: without them, or without outputs
        """
        if inputs is None or outputs is None:
            raise ValueError(
                "kd_weight needs the student's inputs and outputs: call manager.loss_update(loss, "
                "module, optimizer, epoch, steps_per_epoch, student_inputs=..., "
                "student_outputs=...)"
            )
        taught = teacher_outputs(self._teacher, inputs)
        taught = taught[0] if type(taught) is tuple and isinstance(outputs, Tensor) else taught
        mask = known_tokens(module, inputs, labels)
        if mask is not None:
            shapes = [own.shape for _, own, _ in paired_heads(outputs, taught)]
            if any(len(shape) != 3 or shape[:2] != mask.shape for shape in shapes):
                mask = None  # predictions of whole texts
        far = kldiv_loss(outputs, taught, self._temperature, mask=mask)
        return loss + self._weight * far

    @contextmanager
    def in_scores(self, module: Module) -> Iterator[None]:
        """Within the block, note what the module is given, for losses of :meth:`around`."""

        def note(_: Module, args: Any, kwargs: Any) -> None:
            self._seen = kwargs or args

        handle = module.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            self._seen = None

    def around(
        self, loss: Callable[[Any, Any], Tensor], module: Module
    ) -> Callable[[Any, Any], Tensor]:
        """Return the loss of a ``grad_sampler`` with the teacher's part in it."""

        def total(output: Any, target: Any) -> Tensor:
            return self.added_to(loss(output, target), module, self._seen, output, target)

        return total

    def state(self) -> Mapping[str, Tensor] | None:
        """Return the weights of a teacher that is a copy of the student; None of another."""
        teacher = self._teacher
        return teacher.state_dict() if self._owned and isinstance(teacher, Module) else None

    def load_state(self, state: Mapping[str, Tensor] | None) -> None:
        """Restore :meth:`state`.

        :raises ValueError: if the model that was copied has other sizes than the teacher
        """
        if state is None or not self._owned or not isinstance(self._teacher, Module):
            return
        try:
            load_model_state(self._teacher, state, strict=True)
        except RuntimeError as error:
            raise ValueError(
                "the teacher was the model before units were removed: go on with the whole model, "
                f"or give it as distillation_teacher ({str(error).splitlines()[-1].strip()})"
            ) from error
