"""What a Trainer with a recipe gets beside it: loggers, and learning rates that fit."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback

from sparseml.pytorch.utils.logger import TensorBoardLogger, WANDBLogger
from sparseml.pytorch.utils.loggers.base import LogEntry


class AddLoggers(TrainerCallback):
    """Lets modifiers log to where the Trainer does, once that is ready."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add loggers for TensorBoard and W&B, and give them to the modifiers."""
        manager, loggers = self._trainer.manager, self._trainer.logger_manager
        if manager is None or not state.is_world_process_zero:
            return
        if not len(loggers):
            for callback in self._trainer.callback_handler.callbacks:
                if (writer := getattr(callback, "tb_writer", None)) is not None:
                    loggers.add_logger(TensorBoardLogger(writer=writer))
            if "wandb" in (args.report_to or []):
                loggers.add_logger(_WANDBBesideTrainer())
        manager.initialize_loggers(loggers)


class _WANDBBesideTrainer(WANDBLogger):
    """Writes to the run of the Trainer, whose own entries have no step but this number."""

    def emit(self, entry: LogEntry) -> bool:
        numbers = entry.numbers()
        if numbers:
            self.wandb.log({**numbers, "train/global_step": entry.step})
        return bool(numbers)


class UnchangedRates(LRScheduler):
    """A scheduler that leaves learning rates, and groups, to others: to the recipe."""

    def get_lr(self) -> list[Any]:
        """Return the rates as they are."""
        return [group["lr"] for group in self.optimizer.param_groups]

    get_last_lr = get_lr


def follow_groups(scheduler: Any, optimizer: Any) -> None:
    """Let a scheduler know groups that its optimizer got later: projections of a distillation.

    Their rates follow that of the group which has the highest one.
    """
    if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, UnchangedRates):
        return
    known, count = len(scheduler.base_lrs), len(optimizer.param_groups)
    if count == known:
        return
    like, of_state = max(range(known), key=scheduler.base_lrs.__getitem__), scheduler.state_dict
    for values in (scheduler.base_lrs, getattr(scheduler, "lr_lambdas", [])):
        values += values[like : like + 1] * (count - known)

    def shown() -> dict[str, Any]:
        # the optimizer hides these groups, too, until the first loss
        found = {key: value for key, value in of_state().items() if key != "state_dict"}
        return {k: v[:known] if isinstance(v, list) else v for k, v in found.items()}

    scheduler.state_dict = shown  # type: ignore[method-assign]
