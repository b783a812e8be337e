"""Distillation from what a teacher's layers give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.distillation import feature_mse
from sparseml.pytorch.sparsification.distillation.feature_layers import PairedFeatures
from sparseml.pytorch.sparsification.distillation.hidden_group import DISTILL_PARAM_GROUP_KEY
from sparseml.pytorch.sparsification.distillation.modifier_distillation_base import (
    BaseDistillationModifier,
)
from sparseml.pytorch.sparsification.distillation.projections import FeatureProjections
from sparseml.pytorch.sparsification.fields import as_flag, as_number, field, list_or_none
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.utils.text import few

_LAYERS = list_or_none("a list of layers", str)


@PyTorchModifierYAML()
class PerLayerDistillationModifier(BaseDistillationModifier):
    """Pulls what layers of the student give to what layers of the teacher give.

    The loss becomes ``loss + gain * sum over the layers``, of the mean squared difference between
    the student's feature, projected to the teacher's width, and the teacher's (Romero et al.,
    "FitNets", 2015). The projections train along, in a parameter group of their own, which the
    optimizer's state leaves out; they are part of this modifier's state. A scheduler of PyTorch's
    with a rate for each group, as ``LambdaLR``, has to be made after the first loss or does not
    know that group.

    | Sample yaml:
    |   !PerLayerDistillationModifier
    |       start_epoch: 0.0
    |       gain: 2.0
    |       student_layer_names: ['blocks.0', 'blocks.1']
    |       teacher_layer_names: ['blocks.1', 'blocks.3']

    :param gain: weight of the distillation
    :param normalize: divide each layer's difference by the mean square of the teacher's feature
    :param student_layer_names: layers to compare, all ``Conv2d`` and ``Linear`` by default
    :param teacher_layer_names: their counterparts, by default of the same names
    :param project_features: map the student's features to the teacher's width
    :param epsilon: added to what ``normalize`` divides by
    :raises ValueError: for lists of names that differ in length
    """

    _progress = ("_projections",)
    _features: PairedFeatures | None
    _student_layer_names: list[str] | None
    _teacher_layer_names: list[str] | None

    def __init__(
        self,
        gain: float = 1.5,
        start_epoch: float = -1.0,
        end_epoch: float = -1.0,
        update_frequency: float = -1.0,
        normalize: bool = True,
        student_layer_names: Iterable[str] | None = None,
        teacher_layer_names: Iterable[str] | None = None,
        project_features: bool = True,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(
            start_epoch=start_epoch, end_epoch=end_epoch, update_frequency=update_frequency
        )
        self.gain = gain
        self.normalize = normalize
        self.student_layer_names = student_layer_names
        self.teacher_layer_names = teacher_layer_names
        self.project_features = project_features
        self.epsilon = epsilon
        if self._student_layer_names is None:
            self._student_layer_names = self._teacher_layer_names
        elif self._teacher_layer_names is None:
            self._teacher_layer_names = self._student_layer_names
        self._require_pairs()
        self._projections = FeatureProjections()

    gain = field(as_number)
    normalize = field(as_flag)
    student_layer_names = field(_LAYERS)
    teacher_layer_names = field(_LAYERS)
    project_features = field(as_flag)
    epsilon = field(as_number)

    def compute_distillation_loss(
        self, optimizer: Any = None, *outputs: Any, **named_outputs: Any
    ) -> Tensor | float:
        """Return the sum over the layers.

        :raises RuntimeError: for features of different shapes, and for layers that did not run
        """
        if self._features is None:
            return 0.0
        features = self._features.take()
        if self.project_features:
            features = self._projections.project(features, optimizer)
        losses = (
            feature_mse(student, teacher, self.normalize, self.epsilon)
            for student, teacher in features.values()
        )
        return sum(losses, 0.0)

    def compute_total_loss(self, loss: Tensor, distillation_loss: Tensor | float) -> Tensor:
        """Return ``loss + gain * distillation_loss``."""
        return loss + self.gain * distillation_loss

    def optimizer_post_step(
        self, module: Module, optimizer: Any, epoch: float, steps_per_epoch: int
    ) -> None:
        """Forget the gradients of the projections: loops may clear those of the model alone."""
        super().optimizer_post_step(module, optimizer, epoch, steps_per_epoch)
        self._projections.clear_gradients()

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of the projections, by the student's layer."""
        return {DISTILL_PARAM_GROUP_KEY: self._projections.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Restore the projections, at once or when the first features are seen.

        :raises IndexError: with ``strict``, for other keys or layers than this modifier has
        """
        state = dict(state_dict)
        weights = state.pop(DISTILL_PARAM_GROUP_KEY, {})
        super().load_state_dict(state, strict)
        known = None if self._features is None else self._features.names
        if weights and known is not None and set(weights) != set(known):
            if strict:
                raise IndexError(
                    f"projections of {few(sorted(weights))} do not fit the layers {few(known)}"
                )
            return
        self._projections.load_state_dict(weights)

    def _attach(self, module: Module) -> None:
        self._detach()
        if not self._distillation_enabled:
            return
        self._require_pairs()
        self._features = PairedFeatures(
            module,
            self._watchable_teacher(module),
            self._student_layer_names,
            self._teacher_layer_names,
        )

    def _require_pairs(self) -> None:
        own, taught = self._student_layer_names, self._teacher_layer_names
        if own is not None and taught is not None and len(own) != len(taught):
            raise ValueError(
                "student_layer_names and teacher_layer_names must name as many layers, found "
                f"{len(own)} {own} and {len(taught)} {taught}"
            )
