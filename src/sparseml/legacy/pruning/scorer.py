"""How important each weight is, in the form that SparseML 1.x gave to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from sparseml.pytorch.functional.scores import magnitude
from sparseml.pytorch.sparsification.pruning.methods.elementwise import (
    DropAndGrow,
    GradientTimesWeight,
    KeepZeros,
    Magnitude,
    Movement,
)
from sparseml.pytorch.sparsification.pruning.methods.fast_cap import FastCAP
from sparseml.pytorch.sparsification.pruning.methods.method import Method
from sparseml.pytorch.sparsification.pruning.methods.mfac import MFAC
from sparseml.pytorch.sparsification.pruning.methods.obs import OptimalBrainSurgeon
from sparseml.pytorch.utils.distributed import is_distributed, sum_over_ranks

__all__ = [
    "FastCAPruningParamsScorer",
    "GWProdPruningParamsScorer",
    "MFACPruningParamsScorer",
    "MagnitudePruningParamsScorer",
    "MethodScorer",
    "MovementPruningParamsScorer",
    "OBSPruningParamsScorer",
    "PruningParamsGradScorer",
    "PruningParamsScorer",
    "RigLPruningParamsScorer",
    "scorer_of",
]

_GROUP_TIMEOUT = timedelta(seconds=7200)


class PruningParamsScorer(ABC):
    """Scores parameters, in the order of all lists here; the lowest scores are pruned.

    At every optimizer step :meth:`pre_optim_step_update` sees the gradients. When a mask is due,
    :meth:`score_parameters` ranks the weights, and :meth:`mask_update` is told the new masks while
    the newly pruned weights still have their values, so that it may compensate the remaining ones.
    """

    def __init__(self, params: Sequence[Parameter]) -> None:
        self._params = list(params)
        self._last_applied_sparsity: float | list[float] = 0.0

    @abstractmethod
    def score_parameters(self) -> list[Tensor]:
        """Return a score per weight, one tensor of the parameter's shape for each parameter."""

    def pre_optim_step_update(self, masks: list[Tensor]) -> None:  # noqa: B027
        """Called at every optimizer step with its gradients, before the weights move."""

    def mask_update(self, masks: list[Tensor], mask_diffs: list[Tensor]) -> None:  # noqa: B027
        """Called with the masks decided on, before they are applied.

        :param mask_diffs: 1 where newly kept, -1 where newly pruned, 0 elsewhere
        """

    def update_last_applied_sparsity(self, sparsity: float) -> None:
        """Called before :meth:`mask_update` with the sparsity of all new masks together."""
        self._last_applied_sparsity = sparsity

    def check_regen_param_vals(self) -> None:  # noqa: B027
        """Called before scoring, for scorers that keep values of their own for pruned weights."""

    def on_pruning_end(self) -> None:  # noqa: B027
        """Called once when pruning has ended; free what is no longer needed."""

    def set_params(self, params: Sequence[Parameter]) -> None:
        """Score these parameters from now on: the same ones as new objects (moved, converted)."""
        self._params = list(params)

    def progress_state(self) -> dict[str, Any]:
        """What has been collected so far, as plain data and tensors, for a run to be resumed."""
        return {"last_applied_sparsity": self._last_applied_sparsity}

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`."""
        self._last_applied_sparsity = state["last_applied_sparsity"]


class PruningParamsGradScorer(PruningParamsScorer):
    """A scorer that uses gradients, and therefore has to agree with other processes.

    In a distributed run ``dist_backend`` is that of a process group of its own (as ``gloo``, which
    moves CPU tensors); None uses the default group.
    """

    def __init__(self, params: Sequence[Parameter], dist_backend: str | None = None) -> None:
        super().__init__(params)
        self._is_ddp = is_distributed()
        self._is_main_proc = not self._is_ddp or dist.get_rank() == 0
        self._group: Any = None
        if self._is_ddp and dist_backend:
            self._group = dist.new_group(backend=dist_backend, timeout=_GROUP_TIMEOUT)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_group": None}  # it belongs to the process that made it

    def _broadcast_list_from_main(self, val: list[Any]) -> list[Any]:
        """Return the list that rank 0 holds, on every rank."""
        if not self._is_ddp:
            return val
        message = list(val) if self._is_main_proc else [None] * len(val)
        dist.broadcast_object_list(message, src=0, group=self._group)
        return message


class MagnitudePruningParamsScorer(PruningParamsScorer):
    """Absolute values."""

    def score_parameters(self) -> list[Tensor]:
        return [magnitude(param) for param in self._params]


class MovementPruningParamsScorer(PruningParamsGradScorer):
    """How far training has moved each weight away from zero, summed over all steps.

    The sum of ``-0.01 * gradient * weight`` (Sanh et al., "Movement pruning", 2020). A step whose
    gradient is not finite adds nothing. Pruned weights do not move, and are not taken back.

    :param method: whose sums these are, if they are those of a modifier
    """

    def __init__(
        self,
        params: Sequence[Parameter],
        dist_backend: str | None = None,
        *,
        method: Movement | None = None,
    ) -> None:
        super().__init__(params, dist_backend)
        self._method = Movement(type(self).__name__) if method is None else method
        self._masks = [torch.ones_like(param) for param in self._params]

    @property
    def _movement_scores(self) -> list[Tensor]:
        return self._method.sums_of(self._params)

    def pre_optim_step_update(self, masks: list[Tensor]) -> None:
        self._masks = masks
        self._method.add(self._params)

    def score_parameters(self) -> list[Tensor]:
        """Return the sums over all steps and ranks, minus infinity where pruned."""
        pairs = zip(sum_over_ranks(self._movement_scores), self._masks, strict=True)
        return [score.masked_fill(mask.to(score.device) == 0, -torch.inf) for score, mask in pairs]

    def mask_update(self, masks: list[Tensor], mask_diffs: list[Tensor]) -> None:
        self._masks = masks

    def progress_state(self) -> dict[str, Any]:
        scores = [score.detach().clone() for score in self._movement_scores]
        return {**super().progress_state(), "movement_scores": scores}

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        super().load_progress_state(state)
        self._method.load_progress_state({"sums": state["movement_scores"]})


class MethodScorer(PruningParamsScorer):
    """Stands for a method that scores weights only while it decides; tells which one it is."""

    def __init__(self, params: Sequence[Parameter], method: Method | None = None) -> None:
        super().__init__(params)
        self.method = method

    def score_parameters(self) -> list[Tensor]:
        """Refuse with a RuntimeError."""
        raise RuntimeError(
            f"{type(self).__name__} has no scores, as its method finds them only while it decides; "
            "call the modifier's outcome(model) for masks and weights"
        )


class OBSPruningParamsScorer(MethodScorer):
    """Stands for the method of OBS and CAP."""


class FastCAPruningParamsScorer(MethodScorer):
    """Stands for the method of FastCAP."""


class MFACPruningParamsScorer(MethodScorer):
    """Stands for the method of M-FAC."""


class GWProdPruningParamsScorer(MethodScorer):
    """Stands for the product of gradient and weight."""


class RigLPruningParamsScorer(MethodScorer):
    """Stands for the method of RigL."""


_STANDS_FOR: dict[type[Method], type[MethodScorer]] = {
    OptimalBrainSurgeon: OBSPruningParamsScorer,
    FastCAP: FastCAPruningParamsScorer,
    MFAC: MFACPruningParamsScorer,
    GradientTimesWeight: GWProdPruningParamsScorer,
    DropAndGrow: RigLPruningParamsScorer,
}


def scorer_of(method: Method, params: Sequence[Parameter]) -> PruningParamsScorer:
    """Return the scorer that stands for a method."""
    if isinstance(method, Movement):
        return MovementPruningParamsScorer(params, method=method)
    if isinstance(method, (Magnitude, KeepZeros)):
        return MagnitudePruningParamsScorer(params)
    return _STANDS_FOR.get(type(method), MethodScorer)(params, method)
