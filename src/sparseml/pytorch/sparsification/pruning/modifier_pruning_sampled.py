"""What pruning modifiers have in common that prune by gradients sampled from data."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from sparseml.pytorch.sparsification.fields import as_given, field
from sparseml.pytorch.sparsification.modifier import Loggers
from sparseml.pytorch.sparsification.pruning.distributed import broadcast_masks
from sparseml.pytorch.sparsification.pruning.fields import (
    as_count,
    as_inner_fraction,
    as_keywords,
    mask_creator_for,
)
from sparseml.pytorch.sparsification.pruning.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.mask_creator import MaskType, PruningMaskCreator
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.scorer_sampled import Cut, SampledScorer, Subject
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import full_value
from sparseml.pytorch.utils.tensors.stats import tensor_list_sparsity
from sparseml.utils.interpolation import interpolate

__all__ = ["SampledPruningModifier"]

_LOGGER = logging.getLogger(__name__)

Outcome = dict[str, tuple[Tensor, Tensor]]
"""Per parameter: its mask (bool, True = keep) and its new weight."""


class SampledPruningModifier(BaseGradualPruningModifier):
    """Prunes gradually by gradients that are sampled anew for every update.

    Needs ``grad_sampler`` (:mod:`~sparseml.pytorch.sparsification.pruning.gradient_sampling`) at
    initialisation. As in SparseML 1.x, nothing happens with ``steps_per_epoch=1`` at a finite
    epoch. Weights that are zero already count as pruned and stay so: the target is never below the
    sparsity that there is.

    Subclasses say with :meth:`_get_scorer` what is done with the gradients, and put
    :class:`GradualFields` before this class.

    :param mask_type: as of :class:`GMPruningModifier`
    :param num_grads: how many gradients to sample for an update, on all ranks together
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    """

    _mask_type: MaskType
    _num_grads: Any
    _grad_sampler_kwargs: dict[str, Any]
    _fisher_samples = "batch"
    _num_recomputations = 1
    _recomputation_inter_func = "linear"

    def __init__(
        self,
        params: str | Iterable[str],
        init_sparsity: float | str,
        final_sparsity: float | Mapping[float, Sequence[str]],
        start_epoch: float,
        end_epoch: float,
        update_frequency: float,
        *,
        leave_enabled: bool,
        inter_func: str,
        global_sparsity: bool,
        mask_type: MaskType,
        num_grads: Any,
        grad_sampler_kwargs: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(
            params,
            init_sparsity,
            final_sparsity,
            start_epoch=start_epoch,
            end_epoch=end_epoch,
            update_frequency=update_frequency,
            inter_func=inter_func,
            leave_enabled=leave_enabled,
            global_sparsity=global_sparsity,
        )
        self.mask_type = mask_type
        self.num_grads = num_grads
        self.grad_sampler_kwargs = grad_sampler_kwargs
        self._sampler: GradientSampler | None = None

    mask_type = field(as_given)
    num_grads = field(as_count)
    grad_sampler_kwargs = field(as_keywords)

    @abstractmethod
    def _get_scorer(self, params: list[Parameter]) -> SampledScorer:
        """What finds masks and weights by the gradients."""

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """As of other pruning modifiers.

        :param kwargs: ``grad_sampler`` is needed
        :raises RuntimeError: without it, with one that lacks a key, and where the memory that is
            needed is not there
        """
        self._sampler = self._make_sampler(kwargs.get("grad_sampler"))
        super().initialize(module, epoch, loggers, **kwargs)

    def sweep(
        self, module: Module, sparsities: Sequence[float], **kwargs: Any
    ) -> Iterator[tuple[float, Outcome]]:
        """Cut several sparsities from one estimate, in one shot each; the model stays as it is.

        Sampling and elimination are done once, for the highest; each sparsity then costs no more
        than its update of the weights. With several recomputations every sparsity is reached by
        itself instead. The modifier must not be initialised; its own sparsities do not matter.

        .. code-block:: python

            modifier = CAPruningModifier("__ALL_PRUNABLE__", 0.5, 0.5, 0.0, 1.0, 1.0)
            sampler = {"data_loader_builder": build, "loss_fn": cross_entropy}
            params = dict(model.named_parameters())
            for sparsity, outcome in modifier.sweep(model, [0.5, 0.75], grad_sampler=sampler):
                pruned = copy.deepcopy(model)
                for name, (mask, weight) in outcome.items():
                    pruned.get_parameter(name).data.copy_(weight)
                evaluate(pruned)

        :param sparsities: fractions to prune, of all parameters together with ``global_sparsity``
        :param kwargs: as for :meth:`initialize`; ``grad_sampler`` is needed
        :return: pairs of sparsity and, by the parameters' names, masks (bool) and new weights
        :raises ValueError: for a sparsity outside (0, 1)
        :raises RuntimeError: as in :meth:`initialize`
        """
        wanted = [as_inner_fraction("sparsities", sparsity) for sparsity in sparsities]
        self.initialize(module, **kwargs)
        try:
            if self._num_recomputations == 1:
                subject = self._subject(module)
                targets = [self._reachable(subject, s) for s in wanted]
                cuts = self._own_scorer.cuts(subject, targets)
                for sparsity, cut in zip(wanted, cuts, strict=True):
                    yield sparsity, self._outcome(subject, cut)
            else:
                for sparsity in wanted:
                    yield sparsity, self._reached_in_steps(module, sparsity)
        finally:
            self.finalize(module)

    def initialize_extras(self, module: Module) -> None:
        """Hand the sampler to the scorer, and say what an update takes."""
        super().initialize_extras(module)
        scorer = self._own_scorer
        scorer.sampler = self._sampler
        description = scorer.describe(self._subject(module))
        if description:
            _LOGGER.info("%s: %s", type(self).__name__, description)

    def check_mask_update(
        self, module: Module, epoch: float, steps_per_epoch: int, *args: Any, **kwargs: Any
    ) -> None:
        """As of other pruning modifiers; does nothing at a finite epoch of one step."""
        if steps_per_epoch == 1 and not math.isinf(epoch):
            return
        super().check_mask_update(module, epoch, steps_per_epoch, *args, **kwargs)

    def progress_state(self) -> dict[str, Any]:
        """Adds how far the sampled data have come."""
        state = super().progress_state()
        if self._sampler is not None:
            state["sampling"] = self._sampler.progress_state()
        return state

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restores this."""
        super().load_progress_state(state)
        if self._sampler is not None and "sampling" in state:
            self._sampler.load_progress_state(state["sampling"])

    def _make_sampler(self, given: Any) -> GradientSampler | None:
        owner = type(self).__name__
        each = self._fisher_samples == "sample"
        return GradientSampler(given, self._grad_sampler_kwargs, owner, each)

    def _get_mask_creator(
        self, param_names: list[str], params: list[Parameter]
    ) -> PruningMaskCreator:
        return mask_creator_for(self._mask_type, param_names, params)

    @property
    def _own_scorer(self) -> SampledScorer:
        assert isinstance(self._scorer, SampledScorer)
        return self._scorer

    def _subject(self, module: Module) -> Subject:
        masks = self._masks
        found = [
            NamedLayerParam(*owner)
            for owner in zip(
                masks.layer_names, masks.layers, masks.param_names, masks.params, strict=True
            )
        ]
        self._own_scorer.set_params(masks.params)
        weights = [full_value(param) for param in masks.params]
        live = [
            (full_value(mask) != 0) & (weight != 0)
            for mask, weight in zip(masks.param_masks, weights, strict=True)
        ]
        return Subject(module, found, weights, live, masks.mask_creator, self._global_sparsity)

    def _apply_target(self, module: Module, target: Any) -> None:
        start = self._present(self._subject(module))
        goal = [target] * len(start) if isinstance(target, float) else list(target)
        count, curve = self._num_recomputations, self._recomputation_inter_func
        for step in range(1, count + 1):
            at = [
                interpolate(step, 0, count, low, high, curve)
                for low, high in zip(start, goal, strict=True)
            ]
            self._take(self._cut(module, at))

    def _cut(self, module: Module, target: list[float]) -> Cut:
        subject = self._subject(module)
        asked = self._reachable(subject, target)
        if asked == self._present(subject):  # what there is suffices
            return Cut(subject.live, [None] * len(asked))
        return self._own_scorer.cuts(subject, [asked])[0]

    def _take(self, cut: Cut) -> None:
        masks = broadcast_masks([mask.to(torch.uint8) for mask in cut.masks])
        self._own_scorer.stage(cut)
        self._own_scorer.update_last_applied_sparsity(tensor_list_sparsity(masks))
        self._masks.set_param_masks(masks)

    def _present(self, subject: Subject) -> list[float]:
        """The sparsity that there is: of each parameter, or of all together."""
        sizes = [live.numel() for live in subject.live]
        gone = [live.numel() - int(live.sum()) for live in subject.live]
        if self._global_sparsity:
            return [sum(gone) / sum(sizes)] * len(sizes)
        return [part / size for part, size in zip(gone, sizes, strict=True)]

    def _reachable(self, subject: Subject, target: float | Sequence[float]) -> list[float]:
        """The target, but not below the sparsity that there is."""
        present = self._present(subject)
        asked = [target] * len(present) if isinstance(target, float) else target
        return [max(low, high) for low, high in zip(present, asked, strict=True)]

    def _outcome(self, subject: Subject, cut: Cut) -> Outcome:
        outcome = {}
        parts = (subject.found, subject.weights, cut.masks, cut.weights)
        for found, old, mask, new in zip(*parts, strict=True):
            outcome[found.name] = (mask, old * mask.to(old.device) if new is None else new)
        return outcome

    def _reached_in_steps(self, module: Module, sparsity: float) -> Outcome:
        masks = self._masks
        before = [param.detach().clone() for param in masks.params]
        ones = masks.param_masks
        masks.enabled = True
        try:
            self._apply_target(module, sparsity)
            kept = [full_value(mask) != 0 for mask in masks.param_masks]
            weights: list[Tensor | None] = [full_value(param).clone() for param in masks.params]
            return self._outcome(self._subject(module), Cut(kept, weights))
        finally:
            masks.enabled = False
            masks.restore_param_masks(ones)
            with torch.no_grad():
                for param, value in zip(masks.params, before, strict=True):
                    param.copy_(value)
