"""Training and testing a module over a data loader in a few lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sparseml.legacy.module_run.losses import DEFAULT_LOSS_KEY, LossWrapper
from sparseml.legacy.module_run.parts import (
    ModuleDeviceContext,
    ModuleRunFuncs,
    ModuleRunHooks,
    ModuleRunResults,
    def_model_backward,
    early_stop_data_loader,
)
from sparseml.pytorch.utils.logger import BaseLogger, LoggerManager
from sparseml.pytorch.utils.optimizers import get_optim_learning_rate

__all__ = [
    "ModuleDeviceContext",
    "ModuleRunFuncs",
    "ModuleRunHooks",
    "ModuleRunResults",
    "ModuleRunner",
    "ModuleTester",
    "ModuleTrainer",
    "def_model_backward",
]

# counter, step, batch size, data, output, losses: what the hooks after the loss are called with
_Batch = tuple[int, int, int, Any, Any, dict[str, Tensor]]


class ModuleRunner:
    """Runs a module over the batches of a loader.

    :class:`ModuleTrainer` and :class:`ModuleTester` say what happens to each.

    :param module: the model, which is not moved: put it on ``device`` first
    :param device: where the batches are put
    :param loss: a :class:`~sparseml.legacy.module_run.losses.LossWrapper`; another callable, as
        ``torch.nn.functional.cross_entropy``, is called with the whole output and the labels, which
        are the last element of the batch
    :param loggers: where to log the losses, the batches' size and the time they take, as a list or
        a manager; None for nowhere
    :param log_name: first part of the tags
    :param log_steps: steps between two entries; 0 or less for none
    :param log_summary: log the means at the end of a run
    :param device_context: precision and number of processes, one in full precision if None
    """

    module: nn.Module
    device: str | torch.device
    loss: Any
    loggers: Any
    log_name: str
    log_steps: int
    log_summary: bool
    device_context: Any

    def __post_init__(self) -> None:
        if not isinstance(self.loss, LossWrapper):
            self.loss = LossWrapper(self.loss, None, deconstruct_tensors=False)
        if not isinstance(self.loggers, LoggerManager):
            self.loggers = LoggerManager(self.loggers, log_python=False)
        self.device_context = self.device_context or ModuleDeviceContext.default_context()
        self.run_hooks, self.run_funcs = ModuleRunHooks(), ModuleRunFuncs()
        self._epoch_accumulation = 1

    @property
    def _mixed_precision(self) -> bool:
        return self.device_context.use_mixed_precision

    def run_epoch(
        self,
        data_loader: Iterable[Any],
        epoch: int,
        max_epochs: int,
        show_progress: bool = True,
        track_results: bool = True,
        max_steps: int = -1,
        gradient_accum_steps: int = 1,
    ) -> ModuleRunResults | None:
        """Run over the loader as epoch ``epoch`` of ``max_epochs``; see :meth:`run`.

        More ``gradient_accum_steps`` than ``num_accumulated_batches`` take the place of those.
        """
        desc = f"{self.log_name} epoch {epoch + 1}/{max_epochs}"
        self._epoch_accumulation = gradient_accum_steps
        try:
            return self.run(data_loader, desc, epoch, show_progress, track_results, max_steps)
        finally:
            self._epoch_accumulation = 1

    def run(
        self,
        data_loader: Iterable[Any],
        desc: str,
        counter: int = -1,
        show_progress: bool = True,
        track_results: bool = True,
        max_steps: int = -1,
    ) -> ModuleRunResults | None:
        """Run over the batches of ``data_loader``.

        :param desc: shown at the progress bar
        :param counter: number of this run (the epoch), handed to the hooks
        :param max_steps: stop after this many batches; all when < 1
        :return: the losses, or None unless ``track_results``
        :raises ValueError: if a summary is to be logged without ``track_results``
        """
        if self.log_summary and not track_results:
            raise ValueError("log_summary needs track_results=True: there is nothing to sum up")
        results = ModuleRunResults() if track_results else None
        size = len(data_loader) if isinstance(data_loader, Sized) else None
        total = size if max_steps < 1 else min(max_steps, max_steps if size is None else size)
        batches = early_stop_data_loader(data_loader, max_steps)
        batch_sizes = []
        self._start_run()
        start = time.perf_counter()
        with tqdm(batches, desc=desc, total=total, disable=not show_progress) as bar:
            for step, data in enumerate(bar):
                losses, batch_size = self._run_batch(data, counter, step, last=step + 1 == total)
                batch_sizes.append(batch_size)
                if results is not None:
                    results.append(losses, batch_size)
                if self.loggers and self.log_steps > 0 and step % self.log_steps == 0:
                    numbers = {key: value.detach().item() for key, value in losses.items()}
                    numbers |= {"Epoch Counter": max(counter, 0), "Batch Size": batch_size}
                    numbers |= _pace(time.perf_counter() - start, step + 1, total)
                    self._log(numbers | self._extra_numbers(), max(counter, 0) * (size or 0) + step)
        self._end_run()
        if self.loggers and self.log_summary and results is not None and batch_sizes:
            seconds = time.perf_counter() - start
            self._log(self._summary(results, batch_sizes, seconds), max(counter, 0))
        return results

    def _summary(
        self, results: ModuleRunResults, batch_sizes: Sequence[int], seconds: float
    ) -> dict[str, float]:
        """Return what is logged at the end of a run of so many seconds."""
        means = {key: float(results.result_mean(key)) for key in results.results}
        means |= {"Batch Size": sum(batch_sizes) / len(batch_sizes)} | self._extra_numbers()
        numbers = {f"{key} Summary": number for key, number in means.items()}
        return {**numbers, "Minutes per epoch": seconds / 60.0}

    def _run_batch(
        self, data: Any, counter: int, step: int, last: bool
    ) -> tuple[dict[str, Tensor], int]:
        batch_size = self.run_funcs.batch_size(data)
        data = self.run_funcs.to_device(data, self.device)
        self.run_hooks.invoke_batch_start(counter, step, batch_size, data)
        with torch.autocast(torch.device(self.device).type, enabled=self._mixed_precision):
            pred = self.run_funcs.model_forward(data, self.module)
            self.run_hooks.invoke_batch_forward(counter, step, batch_size, data, pred)
            losses = self.loss(data, pred)
        batch = (counter, step, batch_size, data, pred, losses)
        self.run_hooks.invoke_batch_loss(*batch)
        self._learn(batch, last)
        self.run_hooks.invoke_batch_end(*batch)
        return losses, batch_size

    def _log(self, numbers: dict[str, float], step: int) -> None:
        now = time.time()
        for name, number in numbers.items():
            self.loggers.log_scalar(f"{self.log_name}/{name}", number, step, now)

    def _extra_numbers(self) -> dict[str, float]:
        """Return what is logged beside the losses, by name."""
        return {}

    def _start_run(self) -> None: ...

    def _end_run(self) -> None: ...

    def _learn(self, batch: _Batch, last: bool) -> None:
        """Do what follows the losses of a batch, the ``last`` one of the run or not."""


@dataclass(eq=False, repr=False)
class ModuleTrainer(ModuleRunner):
    """Trains a module.

    The gradients of ``num_accumulated_batches`` batches are averaged before the optimizer's step:
    each loss is divided by that number for the backward pass, not where it is reported. Left-over
    batches at the end of a run get a step too, a smaller one. Mixed precision uses a
    ``torch.amp.GradScaler``. The learning rate is logged as well.

    :param optimizer: the optimizer, or what ``manager.modify`` made of it
    :param num_accumulated_batches: batches per optimizer step
    :param optim_closure: handed to ``optimizer.step(closure=...)``
    :raises RuntimeError: for a closure together with mixed precision
    """

    module: nn.Module
    device: str | torch.device
    loss: LossWrapper | Callable[[Any, Any], Tensor]
    optimizer: Any
    num_accumulated_batches: int = 1
    optim_closure: Callable[[], Any] | None = None
    loggers: Sequence[BaseLogger] | LoggerManager | None = None
    log_name: str = "Train"
    log_steps: int = 100
    log_summary: bool = True
    device_context: ModuleDeviceContext | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._accumulated = 0
        self._learning_rate = 0.0
        self._scaler: Any = None
        if self._mixed_precision:
            if self.optim_closure is not None:
                raise RuntimeError("mixed precision cannot run an optim_closure: scale the loss")
            self._scaler = torch.amp.GradScaler(torch.device(self.device).type)

    def _start_run(self) -> None:
        self.module.train()
        self.optimizer.zero_grad()
        self._accumulated = 0

    def _end_run(self) -> None:
        if self._accumulated:  # a loader of unknown length
            self._step()

    def _extra_numbers(self) -> dict[str, float]:
        return {"Learning Rate": self._learning_rate}

    def _learn(self, batch: _Batch, last: bool) -> None:
        wanted = max(self.num_accumulated_batches, self._epoch_accumulation)
        losses = batch[-1]
        if wanted > 1:
            losses = {**losses, DEFAULT_LOSS_KEY: losses[DEFAULT_LOSS_KEY] / wanted}
        self.run_funcs.model_backward(losses, self.module, scaler=self._scaler)
        self.run_hooks.invoke_batch_backward(*batch)
        self._accumulated += 1
        if last or self._accumulated >= wanted:
            self._step()
        # after the step, in which a recipe sets it, and before hooks that set the next one
        self._learning_rate = get_optim_learning_rate(self.optimizer)

    def _step(self) -> None:
        if self._scaler is not None:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        else:
            self.optimizer.step(closure=self.optim_closure)
        self.optimizer.zero_grad()
        self._accumulated = 0


@dataclass(eq=False, repr=False)
class ModuleTester(ModuleRunner):
    """Evaluates a module: eval mode, no gradients; the mode is put back afterwards."""

    module: nn.Module
    device: str | torch.device
    loss: LossWrapper | Callable[[Any, Any], Tensor]
    loggers: Sequence[BaseLogger] | LoggerManager | None = None
    log_name: str = "Test"
    log_steps: int = 100
    log_summary: bool = True
    device_context: ModuleDeviceContext | None = None

    def run(self, *args: Any, **kwargs: Any) -> ModuleRunResults | None:
        """Run over the batches of a loader without gradients; see :meth:`ModuleRunner.run`."""
        was_training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                return super().run(*args, **kwargs)
        finally:
            self.module.train(was_training)


def _pace(seconds: float, steps: int, total: int | None) -> dict[str, float]:
    """Return how fast a run is, after ``steps`` steps of ``total`` (None where unknown)."""
    per_step = seconds / steps
    pace = {"Seconds per step": per_step, "Steps per second": 1.0 / max(per_step, 1e-12)}
    if total is not None:
        pace["Est remaining minutes"] = (total - steps) * per_step / 60.0
    return pace
