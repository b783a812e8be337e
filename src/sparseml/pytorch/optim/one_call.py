"""Pruning a model in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sparseml.pytorch.optim.manager import ScheduledModifierManager
from sparseml.pytorch.optim.new_recipe import METHODS, new_recipe
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.sparsification.statistics import Judged, Pairs, TunedAround, loss_of_logits
from sparseml.pytorch.utils.batch_streams import GradientBatches, make_grad_sampler
from sparseml.pytorch.utils.params import distinct_params, iter_layer_params, parameter_count
from sparseml.pytorch.utils.tensors.stats import count_zeros, tensor_list_sparsity

_SHOWN = 12  # tensors in the text of a summary


@dataclass(frozen=True)
class Pruned:
    """What :func:`prune` did; printed, a few lines for people.

    :param recipe: the text of the recipe that was applied, to be kept or trained by
    :param sparsities: parameter name → fraction of its values that are zero, of what was pruned
    :param pruned: the fraction of zeros in these parameters together
    :param zeros: the fraction of zeros in all parameters of the model
    :param notes: what was chosen on the way, such as a dampening
    :param norms: what came of measuring the running statistics of batch norms anew: the losses with
        both, and which were kept; None if they stay as they were in the dense model
    :param removed: the fraction of the model's parameters that it does not have any more
    """

    recipe: str
    sparsities: Mapping[str, float]
    pruned: float
    zeros: float
    notes: tuple[str, ...] = ()
    norms: Judged | None = None
    removed: float = 0.0

    def __str__(self) -> str:
        count = len(self.sparsities)
        zeros = (
            f"{self.pruned:.2%} of the weights of {count} tensor{'s' if count > 1 else ''} are "
            f"zero, {self.zeros:.2%} of all parameters"
        )
        lines = [
            *([f"{self.removed:.2%} of all parameters are removed"] if self.removed else []),
            *([zeros] if count or not self.removed else []),
            *(f"  {value:7.2%}  {name}" for name, value in [*self.sparsities.items()][:_SHOWN]),
            *([f"  and {count - _SHOWN} more"] if count > _SHOWN else []),
            *self.notes,
            *([] if self.norms is None else [self.norms.told]),
        ]
        return "\n".join(lines)


def prune(
    model: nn.Module,
    method: str = "magnitude",
    sparsity: float = 0.5,
    *,
    data: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    recipe: str | None = None,
    exclude: Iterable[str] = (),
    effort: str = "balanced",
    bn_data: Iterable[Any] | None = None,
    bn_retune: int | None = None,
    goal: Mapping[str, float] | None = None,
) -> Pruned:
    """Prune a model in place, in one shot and without training.

    What is pruned is found in the model (:func:`~sparseml.pytorch.optim.new_recipe.new_recipe`):
    the layers of its blocks; its input and output layers stay dense. Fine-tune afterwards with a
    ``ConstantPruningModifier``, which keeps the zeros, or prune while training by a recipe.

    | Example:
    |   print(sparseml.prune(model, method="cap", sparsity=0.8, data=loader))

    :param method: ``magnitude`` (the smallest weights of all layers together), ``uniform`` (of each
        layer), ``gw``, ``cap``, ``fast_cap``, ``obs`` or ``mfac``; or ``structured``, which removes
        whole filters, neurons and heads, so that the model is smaller. All but the first two need
        ``data``
    :param sparsity: the fraction of the weights of the pruned layers that become zero, or of the
        units of each that are removed
    :param data: gives batches, each time anew: ``(inputs, labels)``, where inputs may be several in
        a tuple, or mappings of keywords for the model, among them ``labels``. They go to the
        model's device
    :param loss: called with the model's output and the labels; cross entropy of the output, or of
        its ``logits``, by default
    :param recipe: a recipe to apply instead: a file, or its text
    :param exclude: names of parameters to leave dense
    :param effort: ``fast``, ``balanced`` or ``best``, of ``cap``, ``fast_cap``, ``obs`` and
        ``mfac``: how much is sampled, in how many steps; a ``recipe`` says this itself
    :param bn_data: batches augmented as in training, by default ``data``, on which the running
        statistics of batch norms are measured anew where that lowers the loss
    :param bn_retune: how many of these, by default enough for 1,600 inputs; 0 leaves them out
    :param goal: of ``structured``, in place of a sparsity: ``{"speedup": 2.0}``, or the share to
        keep as ``{"params": 0.5}`` or ``{"flops": 0.5}``
    :raises ValueError: for an unknown method, a sparsity out of range, data that can be gone
        through only once, and a method that needs data without any
    """
    text, before = recipe, parameter_count(model)
    if text is None:
        text = new_recipe(model, method, sparsity, exclude=exclude, effort=effort, goal=goal)
    if recipe is None and data is None and METHODS[method][1]:
        raise ValueError(f"method {method!r} prunes by gradients: give data, such as a DataLoader")
    manager = ScheduledModifierManager.from_yaml(text)
    given = {} if data is None else {"grad_sampler": _sampler(model, data, loss or loss_of_logits)}
    tuned = TunedAround(model, bn_retune, bn_data, given.get("grad_sampler"))
    manager.apply(model, finalize=False, **given)
    names, notes = _told_of(manager)
    manager.finalize(model)
    told = str(manager) if recipe is not None else text
    return _pruned(model, told, names, notes, tuned.finish(model), before)


def _told_of(manager: ScheduledModifierManager) -> tuple[list[str], tuple[str, ...]]:
    """The parameters that have masks, and what pruning modifiers tell of what they did."""
    pruners = [one for one in manager.iter_modifiers() if isinstance(one, BasePruningModifier)]
    kept = [one for one in pruners if not getattr(one, "removed", False)]
    names = [name for modifier in kept for name in modifier.masks]
    notes = tuple(note for modifier in pruners for note in modifier.notes)
    reached = (getattr(modifier, "reached", "") for modifier in pruners)
    return names, notes + tuple(text for text in reached if isinstance(text, str) and text)


def _pruned(
    model: nn.Module,
    recipe: str,
    names: Sequence[str],
    notes: tuple[str, ...],
    norms: Judged | None,
    before: int,
) -> Pruned:
    named = {one.name: one.param.detach() for one in iter_layer_params(model)}
    pruned = {name: named[name] for name in names if name in named}
    params = [one.param.detach() for one in distinct_params(model)]
    total = sum(param.numel() for param in params)
    removed = before - parameter_count(model)
    return Pruned(
        recipe,
        {name: tensor_list_sparsity([param]) for name, param in pruned.items()},
        tensor_list_sparsity(pruned.values()) if pruned else 0.0,
        sum(map(count_zeros, params)) / max(total, 1),
        notes,
        norms,
        removed / before if removed else 0.0,
    )


def _sampler(model: nn.Module, data: Iterable[Any], loss: Callable[[Any, Any], Tensor]) -> Any:
    if iter(data) is data:
        raise ValueError(
            "data can be gone through only once; give what starts anew, such as a DataLoader or a "
            "list of batches"
        )
    device = next(model.parameters()).device
    loader = Pairs(data)
    return make_grad_sampler(
        lambda number: GradientBatches(lambda: loader, (number,), device), loss
    )
