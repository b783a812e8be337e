"""Hooks by which pruned blocks learn from the original while that runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseml.pytorch.functional.composing.losses import (
    block_error,
    fitting_mask,
    loss_of,
    masks_fitting,
)
from sparseml.pytorch.sparsification.composing.student import Call, Student, first_tensor
from sparseml.utils.text import few

Masks = Mapping[str, Tensor]
"""Name → which positions are no padding, bool ``[batch, positions]``."""


class _Enough(Exception):
    """The last module that somebody learns from has run."""


class Teaching:
    """Has students learn from the modules of a model, within a ``with`` block.

    The model is frozen and in evaluation mode there. Its forward pass ends after the last module
    that is needed. Students learn at once, inside the hook; with ``collect`` their losses are kept
    in :attr:`losses` instead, for a loop that calls ``backward`` itself.

    :param model: the origin; it is left as it was
    :param layouts: module → name of the mask of its output, as :func:`find_layouts` gives them;
        without, of the masks that fit the one that a module's name begins with
    :raises ValueError: (by :meth:`run`) naming a module that the model does not call
    """

    def __init__(
        self,
        model: nn.Module,
        students: Sequence[Student],
        layouts: Mapping[str, str | None] | None = None,
        collect: bool = False,
    ) -> None:
        self.model, self.students, self.layouts = model, list(students), layouts
        self.learning = True
        self.losses: dict[str, Tensor] = {}
        self.sums: dict[str, tuple[float, float]] = {}
        self._collect = collect
        self._masks: Masks = {}
        self._inputs: dict[str, Call] = {}
        self._seen, self._needed = 0, 0
        self._handles: list[RemovableHandle] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Teaching:
        self._stack.enter_context(frozen(self.model, self._dropout))
        for name in sorted({name for one in self.students for name in one.block.modules}):
            handle = self.model.get_submodule(name).register_forward_hook(
                self._hook(name), with_kwargs=True
            )
            self._handles.append(handle)
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._stack.close()

    @property
    def _dropout(self) -> bool:
        return any(one.settings.teacher_dropout for one in self.students)

    def run(self, forward: Callable[[], Any], masks: Masks) -> None:
        """Run the model on a batch, and have all students learn from it or, held out, be measured.

        :param forward: calls the model
        :param masks: which positions of the batch are real
        """
        self.begin(masks)
        with torch.no_grad(), contextlib.suppress(_Enough):
            forward()
        if not self._needed:
            self._needed = self._seen
            for one in self.students:
                if missing := [name for name in one.block.modules if name not in self._inputs]:
                    raise ValueError(f"the model has no call of {missing[0]} to learn from")

    def begin(self, masks: Masks) -> None:
        """Forget the batch before."""
        self._masks, self._seen, self.losses = masks, 0, {}

    def teach(self, students: Sequence[Student], learning: bool = True) -> None:
        """Let these students learn from now on, or be measured; others do neither."""
        self.students, self.learning, self._needed = list(students), learning, 0

    def held_out(self) -> dict[str, float]:
        """Return block id → loss over all batches that were measured since the last call."""
        found = {key: over / max(under, 1e-45) for key, (over, under) in self.sums.items()}
        self.sums = {}
        return found

    def _hook(self, name: str) -> Callable[..., None]:
        own = self.model.get_submodule(name)

        def called(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if module is not own:  # of a copy of the model
                return
            self._inputs[name] = args, kwargs
            wanted = False
            for student in self.students:
                wanted |= name in student.block.modules
                if student.block.modules[-1] == name:
                    calls = [self._inputs[one] for one in student.block.modules]
                    self._teach(student, calls, first_tensor(output).detach())
            self._seen += wanted
            if not self._collect and 0 < self._needed == self._seen:
                raise _Enough

        return called

    def _layout(self, student: Student, target: Tensor) -> str | None:
        module = student.block.modules[-1]
        if self.layouts is not None:
            return self.layouts[module]
        fitting = masks_fitting(target.shape, self._masks)
        named = (name for name in fitting if module.startswith(name))
        return next(named, next(iter(fitting), None))

    def _teach(self, student: Student, calls: list[Call], target: Tensor) -> None:
        key, kind = student.block.block_id, student.settings.loss
        real = fitting_mask(target.shape, self._masks, self._layout(student, target))
        if not self.learning:
            was = student.module.training
            with torch.no_grad():
                student.module.eval()
                over, under = block_error(student.run(calls), target, kind, real)
            student.module.train(was)
            before = self.sums.get(key, (0.0, 0.0))
            self.sums[key] = before[0] + float(over), before[1] + float(under)
            return
        with torch.enable_grad(), student.drawing():
            loss = loss_of(block_error(student.run(calls), target, kind, real))
        if self._collect:
            self.losses[key] = self.losses[key] + loss if key in self.losses else loss
        else:
            loss.backward()


@contextlib.contextmanager
def frozen(model: nn.Module, dropout: bool = False) -> Iterator[None]:
    """Within the block a model does not train, and takes no fast path around its modules."""
    training = {name: part.training for name, part in model.named_modules()}
    trained = {name: param.requires_grad for name, param in model.named_parameters()}
    fast = torch.backends.mha.get_fastpath_enabled()
    model.train(dropout).requires_grad_(False)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for name, part in model.named_modules():
            part.training = training[name]
        for name, param in model.named_parameters():
            param.requires_grad_(trained[name])


def find_layouts(
    model: nn.Module,
    modules: Iterable[str],
    batches: Iterable[tuple[Callable[[], Any], Masks]],
) -> dict[str, str | None]:
    """Return module → name of the mask whose positions its output has; None for no positions.

    Masks are told apart by their shapes, so that batches are tried until these differ.

    :param batches: each the call of the model, and its masks
    :raises ValueError: naming a module of which that cannot be told
    """
    left: dict[str, set[str] | None] = dict.fromkeys(modules)
    shapes: dict[str, torch.Size] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(_noting(name, shapes)) for name in left
    ]
    try:
        with frozen(model), torch.no_grad():
            for forward, masks in batches:
                shapes.clear()
                forward()
                for name, shape in shapes.items():
                    fitting, before = set(masks_fitting(shape, masks)), left[name]
                    left[name] = fitting if before is None else before & fitting
                if all(found is not None and len(found) < 2 for found in left.values()):
                    break
    finally:
        for handle in handles:
            handle.remove()
    return {name: _decided(name, found) for name, found in left.items()}


def _noting(name: str, shapes: dict[str, torch.Size]) -> Callable[..., None]:
    def note(module: nn.Module, args: Any, output: Any) -> None:
        shapes[name] = first_tensor(output).shape

    return note


def _decided(name: str, found: set[str] | None) -> str | None:
    if found is None:
        raise ValueError(f"the model has no call of {name} to learn from")
    named = [one for one in found if name.startswith(one)] if len(found) > 1 else list(found)
    if len(named) > 1 or (found and not named):
        raise ValueError(
            f"whose padding the output of {name} has cannot be told: the masks "
            f"{few(sorted(found))} have the same shape in all batches; shuffle the batches, or "
            "give one mask only"
        )
    return named[0] if named else None
