"""Keeping a sparse model sparse."""

from __future__ import annotations

from collections.abc import Iterable

from torch.nn import Module

from sparseml.lazy import lazy_names
from sparseml.pytorch.sparsification.fields import declared_fields, fixed, ignored, stated
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.elementwise import KeepZeros
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.utils.params import names_of, prunable_params
from sparseml.pytorch.utils.tensors.stats import tensor_sparsity

# what was defined here in SparseML 1.x
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "sparseml.legacy.pruning.mask_creator": "ConstantMaskCreator",
    },
)

_SPARSE = 0.1


@PyTorchModifierYAML()
@declared_fields()
class ConstantPruningModifier(BasePruningModifier):
    """Keeps the weights zero that are zero when it starts.

    For fine-tuning a pruned model. At the end the weights are free again.

    | Sample yaml:
    |   !ConstantPruningModifier
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       params: ['re:.*weight']

    :param update_frequency: accepted for the sake of old recipes; the masks never change
    :param leave_enabled: always False
    :param global_sparsity: always False
    """

    params: str | Iterable[str]
    start_epoch: float = -1.0
    end_epoch: float = -1.0
    update_frequency: float = ignored(default=-1)  # as SparseML 1.x shows it
    end_comparator: int = fixed(-1)
    leave_enabled: bool = stated(default=False, why="at the end the weights are free again")
    global_sparsity: bool = stated(default=False, why="nothing is ranked")
    _decides_once = True
    _order_dependence = ""

    @staticmethod
    def from_sparse_model(model: Module) -> list[ConstantPruningModifier]:
        """A modifier for each prunable layer of which more than a tenth of the weights are zero."""
        return [
            ConstantPruningModifier(params=[names_of(found)[-1]])
            for found in prunable_params(model)
            if tensor_sparsity(found.param.detach()) > _SPARSE
        ]

    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> None:
        """Return None: the sparsity is that of the parameters."""
        return None

    def _get_method(self) -> KeepZeros:
        return KeepZeros()
