"""Gradual pruning by movement."""

from __future__ import annotations

from sparseml.lazy import lazy_names
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_given,
    declared_fields,
    field,
    fixed,
    new_field,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.elementwise import Movement
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_magnitude import GMPruningModifier
from sparseml.pytorch.sparsification.pruning.settings.fields import MaskType

# what was defined here in SparseML 1.x
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "sparseml.legacy.pruning.scorer": "MovementPruningParamsScorer",
    },
)


@PyTorchModifierYAML()
@declared_fields(GradualFields)
class MovementPruningModifier(BaseGradualPruningModifier):
    """Prunes the weights that training moves towards zero: Sanh et al., "Movement pruning" (2020).

    Movement is summed from the first optimizer step on, so the start should leave some steps for
    that. It has no use in one shot, where nothing has moved.

    | Sample yaml:
    |   !MovementPruningModifier
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 1.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    |       params: ['re:.*weight']

    :param mask_type: as of :class:`GMPruningModifier`
    :param global_sparsity: rank the weights of all parameters together
    """

    mask_type: MaskType = field(as_given, default="unstructured")
    global_sparsity: bool = new_field(as_flag, default=False)
    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None
    end_comparator: int = fixed(-1)
    _order_dependence = "it ranks weights by how training has moved them"

    def _get_method(self) -> Movement:
        return Movement(type(self).__name__)


# SparseML 1.x derives it from GMPruningModifier; isinstance goes on saying so
GMPruningModifier.register(MovementPruningModifier)
