"""Which layers of a student and its teacher are compared, and what they gave last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import Conv2d, Linear, Module

from sparseml.pytorch.utils.layer_tracking import ASLayerTracker
from sparseml.pytorch.utils.layers import get_layer
from sparseml.pytorch.utils.names import canonical_named_modules
from sparseml.utils.text import few


class PairedFeatures:
    """The outputs of pairs of layers, one of the student and one of the teacher.

    Kept are copies of them as the layers gave them, whatever changes them in place afterwards. Of a
    layer that gives a tuple, as some blocks of Transformers do, it is the first entry.

    :param student_names: layers of the student; None for those of the teacher or, without either,
        for all ``Conv2d`` and ``Linear`` of each model
    :param teacher_names: layers of the teacher, in the same order
    :raises ValueError: for different numbers of layers, or none
    :raises RuntimeError: for a layer that does not exist
    """

    def __init__(
        self,
        student: Module,
        teacher: Module,
        student_names: Sequence[str] | None,
        teacher_names: Sequence[str] | None,
    ) -> None:
        own = student_names or teacher_names or _comparable(student)
        taught = teacher_names or student_names or _comparable(teacher)
        if len(own) != len(taught):
            raise ValueError(
                "Found different numbers of teacher and student layers to distill. "
                f"Student: {len(own)} ({few(own)}), teacher: {len(taught)} ({few(taught)}); "
                "name them in student_layer_names and teacher_layer_names"
            )
        if not own:
            raise ValueError(f"{type(student).__name__} has no Conv2d or Linear layers to distill")
        self._student = _trackers(student, own, "student_layer_names")
        self._teacher = _trackers(teacher, taught, "teacher_layer_names")

    @property
    def names(self) -> list[str]:
        """The student's layers."""
        return list(self._student)

    def take(self) -> dict[str, tuple[Tensor, Tensor]]:
        """What student and teacher gave in their last pass, by the student's layer.

        :raises RuntimeError: for a layer that did not run, or whose output is no tensor
        """
        pairs = zip(self._student.items(), self._teacher.items(), strict=True)
        found = {
            own: (_feature(own, "student", seen), _feature(taught, "teacher", also_seen))
            for (own, seen), (taught, also_seen) in pairs
        }
        self.clear()
        return found

    def clear(self) -> None:
        """Forget what the layers gave."""
        for tracker in [*self._student.values(), *self._teacher.values()]:
            tracker.clear()

    def remove(self) -> None:
        """Take the hooks off the layers."""
        for tracker in [*self._student.values(), *self._teacher.values()]:
            tracker.disable()


def _comparable(module: Module) -> list[str]:
    return [
        name for name, layer in canonical_named_modules(module) if type(layer) in (Conv2d, Linear)
    ]


def _trackers(module: Module, names: Sequence[str], argument: str) -> dict[str, ASLayerTracker]:
    if len(set(names)) != len(names):
        raise ValueError(f"{argument} names a layer twice: {few(names, 8)}")
    try:
        layers = {name: get_layer(name, module) for name in names}
    except AttributeError as error:
        raise RuntimeError(f"{argument}: {error}") from error
    trackers = {
        name: ASLayerTracker(layer, track_output=True, output_func=_copied)
        for name, layer in layers.items()
    }
    for tracker in trackers.values():
        tracker.enable()
    return trackers


def _copied(output: Any) -> Any:
    if isinstance(output, tuple) and output:
        output = output[0]
    # a layer after it may work in place, as most ReLUs do, and functions do so unseen
    return output.clone() if isinstance(output, Tensor) else output


def _feature(name: str, whose: str, tracker: ASLayerTracker) -> Tensor:
    output: Any = tracker.tracked_output
    if not isinstance(output, Tensor):
        what = "did not run in its last pass" if output is None else f"gave {type(output).__name__}"
        raise RuntimeError(f"layer {name!r} of the {whose} {what}, a tensor is needed")
    return output
