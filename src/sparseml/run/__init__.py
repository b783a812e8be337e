"""One run, whoever trains: settings, processes, checkpoints, resuming, one shot and training.

:func:`prune` and :func:`train` are the two runs. What they know of a trainer, its models and data
they are lent by a :class:`Glue`. Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.run.batch_norm import frozen_statistics, retune_batch_norm, tracked_norms
    from sparseml.run.checkpoints import Checkpoints, RunIdentity, find_checkpoint
    from sparseml.run.commands import prune, train
    from sparseml.run.errors import RunError, one_line, run_reported
    from sparseml.run.files import atomic_text
    from sparseml.run.fitting import (
        epochs_to_run,
        load_recipe,
        require_fitting_patterns,
        require_fitting_schedule,
    )
    from sparseml.run.masks import (
        carry_masks,
        mask_weights,
        masked_sparsity,
        masks_in_force,
        masks_of_run,
        read_masks,
        write_masks,
    )
    from sparseml.run.processes import Processes
    from sparseml.run.progress import say, shown_progress
    from sparseml.run.sam import SharpnessAware
    from sparseml.run.session import Glue, Metric, Session, Training
    from sparseml.run.sweep import Pruned, asked_sparsities, sweep_recipe

__all__ = [
    "Checkpoints",
    "Glue",
    "Metric",
    "Processes",
    "Pruned",
    "RunError",
    "RunIdentity",
    "Session",
    "SharpnessAware",
    "Training",
    "asked_sparsities",
    "atomic_text",
    "carry_masks",
    "epochs_to_run",
    "find_checkpoint",
    "frozen_statistics",
    "load_recipe",
    "mask_weights",
    "masked_sparsity",
    "masks_in_force",
    "masks_of_run",
    "one_line",
    "prune",
    "read_masks",
    "require_fitting_patterns",
    "require_fitting_schedule",
    "retune_batch_norm",
    "run_reported",
    "say",
    "shown_progress",
    "sweep_recipe",
    "tracked_norms",
    "train",
    "write_masks",
]

_HOMES = {
    "batch_norm": "frozen_statistics retune_batch_norm tracked_norms",
    "checkpoints": "Checkpoints RunIdentity find_checkpoint",
    "commands": "prune train",
    "errors": "RunError one_line run_reported",
    "files": "atomic_text",
    "fitting": "epochs_to_run load_recipe require_fitting_patterns require_fitting_schedule",
    "masks": (
        "carry_masks mask_weights masked_sparsity masks_in_force masks_of_run read_masks "
        "write_masks"
    ),
    "processes": "Processes",
    "progress": "say shown_progress",
    "sam": "SharpnessAware",
    "session": "Glue Metric Session Training",
    "sweep": "Pruned asked_sparsities sweep_recipe",
}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
