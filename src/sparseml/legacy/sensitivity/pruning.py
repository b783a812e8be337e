"""How sensitive a model is to pruning each of its layers, and to the learning rate."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from sparseml.legacy.module_run.losses import DEFAULT_LOSS_KEY, LossWrapper
from sparseml.legacy.module_run.parts import repeated_batches
from sparseml.legacy.module_run.runners import ModuleRunFuncs, ModuleTester, ModuleTrainer
from sparseml.legacy.sensitivity.results import (
    LRLossSensitivityAnalysis,
    PruningLossSensitivityAnalysis,
    default_pruning_sparsities_loss,
)
from sparseml.pytorch.functional.scores import magnitude
from sparseml.pytorch.functional.selection import lowest_mask, prune_count, require_sparsity
from sparseml.pytorch.utils.layers import get_prunable_layers
from sparseml.pytorch.utils.logger import BaseLogger, LoggerManager
from sparseml.pytorch.utils.optimizers import set_optim_learning_rate

__all__ = [
    "default_exponential_check_lrs",
    "lr_loss_sensitivity",
    "model_prunability_magnitude",
    "pruning_loss_sens_magnitude",
    "pruning_loss_sens_one_shot",
]

_DENSE = 1e-9  # sparsities up to here count as none


def pruning_loss_sens_magnitude(
    module: nn.Module,
    sparsity_levels: Sequence[float] = default_pruning_sparsities_loss(extended=True),
) -> PruningLossSensitivityAnalysis:
    """Take the magnitude of the weights that pruning removes for what it costs.

    For each level that is the mean magnitude of the weights between the level before and this one.
    That needs no data, but only compares layers whose inputs are of a size.

    :param sparsity_levels: sparsities to look at, one after the other; 0 is the baseline
    :return: a result for the weight of each prunable layer
    :raises ValueError: for a sparsity that is no fraction, or a model without prunable layers
    """
    analysis = PruningLossSensitivityAnalysis()
    for index, (name, weight) in enumerate(_prunable_weights(module).items()):
        ordered = magnitude(weight).reshape(-1).sort().values.cpu()
        done, count = 0, ordered.numel()
        for sparsity in sparsity_levels:
            require_sparsity(sparsity)
            if sparsity <= _DENSE:
                analysis.add_result(None, name, index, sparsity, 0.0, baseline=True)
                continue
            end = min(round(sparsity * count), count - 1)
            if end > done:
                value, done = ordered[done:end].mean().item(), end
            else:
                value, done = ordered[end].item(), end + 1
            analysis.add_result(None, name, index, sparsity, value, baseline=False)
    return analysis


def model_prunability_magnitude(module: nn.Module) -> float:
    """Return the mean magnitude of all prunable weights, a rough hint at what pruning costs.

    The number only serves to compare models of one architecture with each other.
    """
    weights = _prunable_weights(module).values()
    total = sum(magnitude(weight).double().sum().item() for weight in weights)
    return total / sum(weight.numel() for weight in weights)


def pruning_loss_sens_one_shot(
    module: nn.Module,
    data: Iterable[Any],
    loss: LossWrapper | Callable[[Any, Any], Tensor],
    device: str | torch.device,
    steps_per_measurement: int,
    sparsity_levels: Sequence[float] = default_pruning_sparsities_loss(extended=False),
    loss_key: str = DEFAULT_LOSS_KEY,
    tester_run_funcs: ModuleRunFuncs | None = None,
    tester_loggers: Sequence[BaseLogger] | LoggerManager | None = None,
    show_progress: bool = True,
) -> PruningLossSensitivityAnalysis:
    """Measure the loss with one layer pruned at a time, by magnitude and without training.

    All measurements see the same batches, which are kept in memory. The weights are put back.
    What is not said here is as for :class:`~sparseml.legacy.module_run.runners.ModuleTester`.

    :param data: batches, which are gone through again if they are fewer than the steps
    :param steps_per_measurement: batches for each measurement; all of ``data`` when below 1
    :param sparsity_levels: sparsities to measure at; 0 is the baseline
    :param loss_key: which of the loss's values is taken
    :return: a result for the weight of each prunable layer, one value for each batch
    :raises ValueError: for a sparsity that is no fraction, no batches, or a model without prunable
        layers
    """
    for sparsity in sparsity_levels:
        require_sparsity(sparsity)
    batches = repeated_batches(data, steps_per_measurement)
    tester = ModuleTester(module, device, loss, tester_loggers, log_steps=0, log_summary=False)
    if tester_run_funcs is not None:
        tester.run_funcs.copy(tester_run_funcs)

    def measure() -> list[float]:
        results = tester.run(batches, "sensitivity", show_progress=False)
        return [] if results is None else [float(v.mean()) for v in results.result(loss_key)]

    weights = _prunable_weights(module)
    analysis = PruningLossSensitivityAnalysis()
    dense = measure() if 0.0 in sparsity_levels else []
    for index, (name, weight) in enumerate(
        tqdm(weights.items(), "pruning sensitivity", disable=not show_progress)
    ):
        for sparsity in sparsity_levels:
            with _pruned(weight, sparsity):
                values = dense if sparsity == 0.0 else measure()
            for value in values:
                analysis.add_result(None, name, index, sparsity, value, baseline=sparsity == 0.0)
    return analysis


def _prunable_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return each prunable layer's name and weight; a weight that layers share comes once."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, layer in get_prunable_layers(module):
        weight = layer.weight
        if isinstance(weight, Tensor) and weight.numel():
            found.setdefault(id(weight), (f"{name}.weight" if name else "weight", weight))
    if not found:
        raise ValueError(f"{type(module).__name__} has no prunable layers")
    return dict(found.values())


@contextmanager
def _pruned(weight: Tensor, sparsity: float) -> Iterator[None]:
    """Take out the lowest magnitudes for the time of the block."""
    original = weight.detach().clone()
    keep = lowest_mask(magnitude(weight), prune_count(weight.numel(), sparsity))
    try:
        weight.data.mul_(keep)
        yield
    finally:
        weight.data.copy_(original)


def default_exponential_check_lrs(
    init_lr: float = 1e-6, final_lr: float = 0.5, lr_mult: float = 1.1
) -> tuple[float, ...]:
    """Return rates from ``init_lr`` to ``final_lr``, each ``lr_mult`` times the one before."""
    if not 0.0 < init_lr <= final_lr or not lr_mult > 1.0:
        raise ValueError(
            "rates must rise from init_lr > 0 to final_lr by lr_mult > 1, found "
            f"init_lr={init_lr}, final_lr={final_lr}, lr_mult={lr_mult}"
        )
    rates = [init_lr]
    while rates[-1] < final_lr:
        rates.append(min(rates[-1] * lr_mult, final_lr))
    return tuple(rates)


def lr_loss_sensitivity(
    module: nn.Module,
    data: Iterable[Any],
    loss: LossWrapper | Callable[[Any, Any], Tensor],
    optim: Optimizer,
    device: str | torch.device,
    steps_per_measurement: int,
    check_lrs: Iterable[float] = default_exponential_check_lrs(),
    loss_key: str = DEFAULT_LOSS_KEY,
    trainer_run_funcs: ModuleRunFuncs | None = None,
    trainer_loggers: Sequence[BaseLogger] | LoggerManager | None = None,
    show_progress: bool = True,
) -> LRLossSensitivityAnalysis:
    """Measure the loss while training at each of several learning rates.

    Each rate, in ascending order, starts from the weights and the optimizer's state as they are
    now, sees the same batches, which are kept in memory, and leaves no trace. What is not said here
    is as for :class:`~sparseml.legacy.module_run.runners.ModuleTrainer`.

    :param data: batches, which are gone through again if they are fewer than the steps
    :param steps_per_measurement: batches for each rate; all of ``data`` when below 1
    :param loss_key: which of the loss's values is taken
    :return: for each rate the loss of each batch
    :raises ValueError: for no batches
    """
    batches = repeated_batches(data, steps_per_measurement)
    start = copy.deepcopy((module.state_dict(), optim.state_dict()))
    was_training = module.training
    analysis = LRLossSensitivityAnalysis()
    trainer = ModuleTrainer(
        module, device, loss, optim, loggers=trainer_loggers, log_steps=0, log_summary=False
    )
    if trainer_run_funcs is not None:
        trainer.run_funcs.copy(trainer_run_funcs)
    try:
        for lr in tqdm(sorted(check_lrs), "learning rates", disable=not show_progress):
            _restore(module, optim, start)
            set_optim_learning_rate(optim, lr)
            results = trainer.run(batches, f"learning rate {lr:.3g}", show_progress=False)
            if results is not None:
                values = [float(value.mean()) for value in results.result(loss_key)]
                analysis.add_result(lr, values)
    finally:
        _restore(module, optim, start)
        optim.zero_grad()
        module.train(was_training)
    return analysis


def _restore(
    module: nn.Module, optim: Optimizer, state: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    module.load_state_dict(state[0])
    optim.load_state_dict(copy.deepcopy(state[1]))  # what is loaded is also written to
