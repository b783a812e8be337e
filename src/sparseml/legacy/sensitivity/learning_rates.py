"""How the loss reacts to the learning rate."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from sparseml.legacy.module_run.losses import DEFAULT_LOSS_KEY, LossWrapper
from sparseml.legacy.module_run.parts import repeated_batches
from sparseml.legacy.module_run.runners import ModuleRunFuncs, ModuleTrainer
from sparseml.legacy.sensitivity.results import LRLossSensitivityAnalysis
from sparseml.pytorch.utils.logger import BaseLogger, LoggerManager
from sparseml.pytorch.utils.optimizers import set_optim_learning_rate

__all__ = ["default_exponential_check_lrs", "lr_loss_sensitivity"]


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
