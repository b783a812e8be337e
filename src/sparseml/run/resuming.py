"""Whether a checkpoint belongs to the run that is to go on from it."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from sparseml.run.errors import RunError
from sparseml.run.processes import Processes

__all__ = ["require_same_run", "run_settings"]

_LOGGER = logging.getLogger(__name__)

_OPTIMIZER = ("opt", "sched")
# what has no influence on weights and masks, or is compared by what it leads to
_FREE = {
    *("config", "output", "experiment", "overwrite", "project", "report", "timeout", "device"),
    *("resume", "no_resume_opt", "save_last", "checkpoint_freq", "val_batch_size", "val_split"),
    *("log_interval", "log_sparsity", "log_param_histogram", "log_wandb", "log_tensorboard"),
    *("data_dir", "dataset_download", "pin_mem", "prefetcher", "gs_loader", "checkpoint"),
    *("pretrained", "sparseml_recipe", "recipe_args", "teacher_checkpoint"),
}


def run_settings(args: Namespace, where: Processes) -> dict[str, Any]:
    """The settings that a run's weights depend on, as plain data."""
    kept = {name: value for name, value in vars(args).items() if name not in _FREE}
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in kept.items()}
    return {**plain, "processes": where.count}


def require_same_run(
    path: Any, before: Mapping[str, Any], now: Mapping[str, Any], with_optimizer: bool = True
) -> None:
    """Compare the settings in a checkpoint with those of the run that goes on from it.

    Whatever differs is warned of: the run then is another one than if it had not stopped.

    :param before: as from :func:`run_settings`, where the checkpoint was written
    :param with_optimizer: whether the state of the optimizer is taken over, too
    :raises RunError: if that state is one of another optimizer or schedule
    """
    differing = {
        name: f"{name} {before.get(name)!r} (now {value!r})"
        for name, value in now.items()
        if name in before and before[name] != value
    }
    for name in _OPTIMIZER if with_optimizer else ():
        if name in differing:
            raise RunError(
                f"--resume {path} comes from --{name} {before[name]}, not {now[name]}; "
                "--no-resume-opt goes on without the state of the optimizer"
            )
    if differing:
        _LOGGER.warning(
            "--resume %s comes from other settings, so the numbers will not be those of one whole "
            "run: %s", path, ", ".join(differing.values()),
        )  # fmt: skip
